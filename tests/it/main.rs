//! The integration tests, one binary: an index.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "peers that speak TLS have nobody to talk to")
)]

/// The fuzz targets, over their seeds.
mod corpus;
/// The registry as text: what it says, and what a rewrite keeps.
mod registry_text;

/// Damaged registries: what is refused, and what is read out of them all the same.
mod registry_damage;

/// Which port a project gets.
mod registry_ports;

/// What the code may not mention, and where.
mod tidy;

/// Whether a port is in use.
mod registry_probe;

/// The registry as a library.
mod registry_facade;

/// The registry file: what one process does to it and its folder.
mod registry_store;

/// The registry file: a process that dies or fails at any of its steps.
mod registry_crashes;

/// The registry file on disks that are full or read-only.
mod registry_disks;

/// The registry file, while other programs have a hold on it.
mod registry_waits;

/// The registry file among many processes, killed ones and the Python tool.
mod registry_processes;

/// What the tests of the command line share: a home of their own, and the program run in it.
mod cli_home;

/// The command line: what is understood, what is refused, and which value wins.
mod cli_arguments;

/// `ic completions` and `ic man`, as those read them whom they are for.
mod cli_machine;
mod cli_manual;

/// The commands on the registry: their texts, their JSON, their exit codes.
mod cli_commands;

/// `ic env`: its variables, in every shell that is here.
mod cli_env;

/// `ic doctor`: what is wrong is named, and nothing else is.
mod cli_doctor;

/// `ic doctor` on broken set-ups, one after the other.
mod cli_doctor_setups;

/// Targets in TLS, as the commands see them.
#[cfg(feature = "tls")]
mod cli_tls;

/// `ic health`: what a container's probe is told.
mod cli_health;

/// `ic run`: the program, its variables, its signals and its end.
mod cli_run;

/// `ic mock`: how it ends.
mod cli_mock;

/// `ic snippet`: what is pasted where.
mod cli_snippet;
/// Mappings that nobody needs, and what is remembered of projects beside their ports: pure.
mod registry_prune;

/// Mappings of another registry, and mappings as comma-separated values: pure.
mod registry_import;

/// Ports that are proposed where one is taken, and projects that are found by their repository.
mod cli_discovery;

/// `ic prune`, pins, and the last use of ports.
mod cli_prune;

/// `ic status`: interceptors, impostors, and other programs on ports of projects.
mod cli_status;

/// `ic tail`: whose requests it shows, for people and for programs, and how it ends.
mod cli_tail;

/// `ic export` and `ic import`.
mod cli_transfer;

/// `ic ui`: who may ask, what changes, and what is told.
mod cli_ui;

/// Standard output and standard error: closed, full, and with bytes on them that a terminal would obey.
mod cli_output;

/// Paths and places that are not as they should be.
mod cli_places;

/// The question of `ic reset`, on a terminal.
mod cli_terminal;
// The README's examples, run as a reader would run them.
mod readme;

// The peers that the http_ tests play: client, origin, and the program between them.
mod support;

// The harness itself: its peers against one another, without the program.
mod http_harness;

// What reaches the other side: methods and targets, fields, what the interceptor adds.
mod http_fields;
mod http_identity;
mod http_targets;

/// A Unix socket in the place of a port.
mod http_sockets;
mod http_templates;
// Where messages end, what comes before them, and how long a connection lives.
mod http_bodies;
mod http_connections;
mod http_interim;
mod http_upgrade;
// What is refused, and never forwarded.
mod http_bad_responses;
mod http_refused_bodies;
mod http_refused_framing;
mod http_refused_heads;
// Nothing is held back, nothing piles up.
mod http_floods;
mod http_streaming;
// Clients that leave, and origins that close what is kept.
mod http_departures;
mod http_pool;
// Targets behind a proxy.
mod http_proxy;
// Targets in TLS.
#[cfg(feature = "tls")]
mod http_tls;
// Guards, errors in its own name, its own pages, time limits and the connection limit.
mod http_guards;
mod http_limits;
// What is counted, and how long things took.
mod http_metrics;
// The live feed: what listeners are told, and what they cannot do to anybody.
mod http_feed;
// Start, stop, signals, log.
mod http_process;
// Whoever supervises it: ready and stopping, and an end when nobody needs it.
mod http_supervised;
// What it costs in system calls, threads and bytes; the portable twin costs more.
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod footprint;
// What containers withhold: descriptors, memory, /proc, a file system that can be written, a home.
#[cfg(target_os = "linux")]
mod confined;
/// An image with nothing in it but a static `ic`.
#[cfg(target_os = "linux")]
mod scratch;
// A short soak of everything at once, and a long one.
mod http_mix;
mod http_soak;
