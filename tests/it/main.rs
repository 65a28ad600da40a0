//! The integration tests: one binary, and this index.

#![allow(clippy::unwrap_used, reason = "a failing test reports the place")]
#![cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "peers that use TLS are not needed")
)]

/// The fuzz targets with their seeds.
mod corpus;
/// The text of the registry: its meaning, and what a rewrite preserves.
mod registry_text;

/// Damaged registries: what is refused, and what is recovered.
mod registry_damage;

/// Which port a project gets.
mod registry_ports;

/// Rules for the source: forbidden words and imports.
mod tidy;

/// Whether a port is in use.
mod registry_probe;

/// The registry as a library.
mod registry_facade;

/// The registry file and its folder, with one process.
mod registry_store;

/// The registry file when a process is killed or fails at any step.
mod registry_crashes;

/// The registry file on disks that are full or read-only.
mod registry_disks;

/// The registry file while other programs lock it.
mod registry_waits;

/// The registry file with many processes, killed processes and the Python tool.
mod registry_processes;

/// Shared by the tests of the command line: a home folder, and the program run in it.
mod cli_home;

/// Arguments: what is accepted, what is refused, and which value takes precedence.
mod cli_arguments;

/// `ic completions` and `ic man`, read by shells and by man.
mod cli_machine;
mod cli_manual;

/// The commands on the registry: text, JSON, exit codes.
mod cli_commands;

/// `ic service` with systemd.
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod cli_service;

/// `ic service` with launchd, which `--cfg ic_portable` has on Linux as well.
#[cfg(any(target_os = "macos", ic_portable))]
mod cli_service_launchd;

/// `ic set`: what it keeps, where that is used, and what is shown of secrets.
mod cli_set;

/// `ic serve --all`: which projects it serves, how, and how it follows the registry.
mod cli_all;
mod cli_all_taken;

/// `ic env`: its variables, in every installed shell.
mod cli_env;

/// `ic doctor`: problems are reported, and nothing else.
mod cli_doctor;

/// `ic doctor` on broken set-ups.
mod cli_doctor_files;
mod cli_doctor_setups;
mod cli_doctor_streams;

/// Commands with TLS targets.
#[cfg(feature = "tls")]
mod cli_tls;

/// `ic health`: the results for the probe of a container.
mod cli_health;

/// `ic run`: the program, its variables, its signals and its end.
mod cli_run;

/// `ic mock`: how it exits.
mod cli_mock;
/// What the mock answers, in each API.
mod mock;

/// `ic snippet`: settings and their places.
mod cli_snippet;
/// Unused mappings, and the notes about projects beside their ports; without I/O.
mod registry_prune;

/// Import of the mappings of another registry; without I/O.
mod registry_import;

/// Suggested ports, and projects that are found by their repository.
mod cli_discovery;

/// `ic prune`, pins, and the last use of ports.
mod cli_prune;

/// `ic status`: interceptors, false ones, and other programs on ports of projects.
mod cli_status;

/// `ic stop`: what it ends, what it leaves alone, and what it waits for.
mod cli_stop;

/// `ic tail`: which requests it shows, as text and as JSON, and its end.
mod cli_tail;

/// `ic export` and `ic import`.
mod cli_transfer;

/// `ic ui`: access, changes, and notifications.
#[cfg(feature = "ui")]
mod cli_ui;

/// Standard output and standard error: closed, full, and with control characters.
mod cli_output;

/// Unusual and invalid paths.
mod cli_places;

/// The confirmation of `ic reset` on a terminal.
mod cli_terminal;
// The examples of the README, run as a reader would run them.
mod readme;

// The peers of the http_ tests: client, origin, and the program between them.
mod support;

// Tests of these peers without the program.
mod http_harness;

// What is forwarded: methods and targets, fields, additions of the interceptor.
mod http_fields;
mod http_identity;
mod http_targets;

/// A Unix socket instead of a port.
mod http_sockets;
mod http_templates;
// Framing, interim responses, and the lifetime of connections.
mod http_bodies;
mod http_connections;
mod http_interim;
mod http_upgrade;
// Messages that are refused and never forwarded.
mod http_bad_responses;
mod http_refused_bodies;
mod http_refused_framing;
mod http_refused_heads;
// Streaming without buffering, and bounded memory.
mod http_floods;
mod http_streaming;
// Clients that disconnect, and origins that close pooled connections.
mod http_departures;
mod http_pool;
// Targets whose name gets another address.
#[cfg(target_os = "linux")]
mod http_lookup;
// Targets that are reached through a proxy.
mod http_proxy;
// TLS targets.
#[cfg(feature = "tls")]
mod http_tls;
// Guards, errors of the interceptor, its own pages, time limits and the connection limit.
mod http_guards;
mod http_limits;
// Counters and durations.
mod http_metrics;
// The live feed: its events, and that subscribers cannot disturb requests.
mod http_feed;
mod http_feed_models;
mod http_feed_watch;
// Event streams whose client disconnects at the end mark.
mod http_end_marks;
// Start, stop, signals, log.
mod http_process;
// Service managers: readiness, stopping, socket activation, and the idle exit.
mod http_supervised;
// System calls, threads and bytes; the portable code needs more.
#[cfg(all(target_os = "linux", not(ic_portable)))]
mod footprint;
// Restrictions of containers: descriptors, memory, /proc, a read-only file system, no home.
#[cfg(target_os = "linux")]
mod confined;
/// An image that contains only a static `ic`.
#[cfg(target_os = "linux")]
mod scratch;
// A short soak test and a long one.
mod http_mix;
mod http_soak;
