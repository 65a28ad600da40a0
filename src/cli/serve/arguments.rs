//! The options of `ic serve`, which `ic run` takes as well. What they mean is decided in the files beside this one.

use argh::{ArgsInfo, FromArgs};

/// run this project's interceptor in the foreground
#[derive(FromArgs, ArgsInfo, Debug, Default, PartialEq)]
#[argh(
    subcommand,
    name = "serve",
    help_triggers("-h", "--help"),
    example = "ic serve --target http://localhost:4000\n\
               ic serve --target https://llm.example.com --ca-file company-ca.pem\n\
               ic serve --header 'x-team: blue' --header 'x-branch: {{branch}}'\n\
               ic serve --listen unix:/run/user/1000/shop.sock\n\
               ic serve --all --target http://localhost:4000\n\
               INTERCEPTOR_PORT=9000 ic serve --project ~/work/shop",
    note = "Durations are in seconds; fractions are allowed.\n\
            Environment variables, used where the option is missing: INTERCEPTOR_PORT,\n\
            TARGET_LLM_URL, SUPERMEMORY_USERNAME. RUST_LOG filters the log (default: info).\n\
            SSL_CERT_FILE and SSL_CERT_DIR replace the certificates that the system trusts.\n\
            NOTIFY_SOCKET receives READY=1 and STOPPING=1 (sd_notify(3)). Sockets passed in\n\
            LISTEN_FDS (systemd socket activation), TCP or Unix, replace host and port.",
    error_code(0, "stopped by SIGINT, SIGTERM or SIGHUP, or by --idle-exit"),
    error_code(2, "an option or a variable has an invalid value"),
    error_code(
        3,
        "it cannot start: the port is in use, or no port is left; with --all, the registry cannot be read, or another one runs"
    )
)]
pub struct Serve {
    /// serve every project of the registry in this process, each on its port under its own identifier. The other options are
    /// the defaults of all projects; what `ic set` keeps for one comes before them
    #[argh(switch)]
    pub all: bool,
    /// name or address to listen on, or * for all addresses of IPv4 and IPv6; may be repeated; default: localhost
    /// (127.0.0.1 and ::1)
    #[argh(option, arg_name = "H")]
    pub host: Vec<String>,
    /// port to listen on; default: the project's port in the registry
    #[argh(option, arg_name = "N")]
    pub port: Option<String>,
    /// path of a Unix socket to listen on instead of a port, as unix:/path.sock
    #[argh(option, arg_name = "SOCKET")]
    pub listen: Option<String>,
    /// file mode of the --listen socket, in octal; default: 600 (this user only)
    #[argh(option, arg_name = "MODE")]
    pub listen_mode: Option<String>,
    /// where requests go, as http://…, https://… or unix:/path.sock; default: http://localhost:8764
    #[argh(option, arg_name = "URL")]
    pub target: Option<String>,
    /// identifier sent with every request; default: pycharm-{project}. Filled in at the start: {project}, {parent},
    /// {port}, {branch}, {user} and {host}
    #[argh(option, arg_name = "ID")]
    pub instance_id: Option<String>,
    /// header field to set on every request, as `Name: value`; may be repeated. Filled in at the start: {instance},
    /// {project}, {parent}, {port}, {branch}, {user}, {host}, and {env:NAME} (a variable, for keys)
    #[argh(option, arg_name = "FIELD")]
    pub header: Vec<String>,
    /// the project's folder; default: the current folder
    #[argh(option, arg_name = "PATH")]
    pub project: Option<String>,
    /// how long to retry while the target cannot be connected to; default: 0
    #[argh(option, arg_name = "SECS")]
    pub hold: Option<String>,
    /// maximum time to receive a request head; 0: no limit; default: 30
    #[argh(option, arg_name = "SECS")]
    pub head_timeout: Option<String>,
    /// maximum idle time of a client connection between requests; 0: no limit; default: 75
    #[argh(option, arg_name = "SECS")]
    pub idle_timeout: Option<String>,
    /// maximum time to connect to the target; 0: no limit; default: 10
    #[argh(option, arg_name = "SECS")]
    pub connect_timeout: Option<String>,
    /// maximum wait for the target's response headers; 1xx do not count; 0: no limit; default: 0
    #[argh(option, arg_name = "SECS")]
    pub first_byte_timeout: Option<String>,
    /// maximum stall of a request or response body; 0: no limit; default: 0
    #[argh(option, arg_name = "SECS")]
    pub body_timeout: Option<String>,
    /// maximum number of simultaneous client connections; a new one replaces the longest idle one; default: 1024
    #[argh(option, arg_name = "N")]
    pub max_connections: Option<String>,
    /// removed; refused with a hint for one release
    #[argh(option, arg_name = "N", hidden_help)]
    pub threads: Option<String>,
    /// how long requests in flight may continue after a signal to stop; default: 10
    #[argh(option, arg_name = "SECS")]
    pub grace: Option<String>,
    /// exit after this time without a client; 0: never; default: 0
    #[argh(option, arg_name = "SECS")]
    pub idle_exit: Option<String>,
    /// additional Host value to accept; may be repeated; default: none, or all if --host is not loopback
    #[argh(option, arg_name = "NAME")]
    pub allow_host: Vec<String>,
    /// web origin whose pages may send requests, as `https://example.com`; null: pages without an origin; may be
    /// repeated
    #[argh(option, arg_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// additional CA certificates (PEM), or that of the target itself, to trust for an https target
    #[argh(option, arg_name = "FILE")]
    pub ca_file: Option<String>,
    /// client certificate chain (PEM) for an https target
    #[argh(option, arg_name = "FILE")]
    pub client_cert: Option<String>,
    /// private key (PEM) of the client certificate; default: read from the --client-cert file
    #[argh(option, arg_name = "FILE")]
    pub client_key: Option<String>,
    /// do not verify the target's TLS certificate (unsafe)
    #[argh(switch)]
    pub insecure: bool,
    /// use the proxy in http_proxy, https_proxy or all_proxy for targets on other machines, except hosts in
    /// no_proxy; upper-case names count too
    #[argh(switch)]
    pub use_proxy_env: bool,
    /// serve responses from the embedded mock instead of a target
    #[argh(switch)]
    pub mock: bool,
    /// with --mock: time between stream events, in milliseconds; default: 20
    #[argh(option, arg_name = "MS")]
    pub mock_interval_ms: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_option_with_its_default() {
        let program = argh::CommandInfoWithArgs {
            name: "ic",
            ..argh::CommandInfoWithArgs::default()
        };
        let help = crate::cli::help::help(&program, Some(&Serve::get_args_info()), 100);
        for part in [
            "Usage: ic serve [OPTION…]\n",
            "  --host H ",
            "  --header FIELD ",
            " default: pycharm-{project}. ",
            "http://localhost:8764",
            "  --first-byte-timeout SECS ",
            "  --mock-interval-ms MS ",
        ] {
            assert!(help.contains(part), "{part}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100));
    }
}
