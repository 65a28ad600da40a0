//! What `ic serve` prints once it listens.

use std::net::SocketAddr;

use super::listening::is_loopback;
use super::port::PortOrigin;
use crate::cli::address::BaseUrls;
use crate::cli::help::wrap;
use crate::cli::output::eprint_text;
use crate::cli::terminal::Terminal;
use crate::registry::Port;
use crate::serve::Address;
use crate::text::Escaped;

/// The facts of an interceptor that its user wants to see.
pub struct Announcement {
    pub instance_id: String,
    pub target: String,
    /// Where clients reach it; `None` for Unix sockets.
    pub urls: Option<BaseUrls>,
    /// The names of the fields that it adds to each request.
    pub added: Vec<String>,
    /// The terminal that it is started on.
    pub terminal: Option<Terminal>,
    pub port: Option<(Port, PortOrigin)>,
    /// Whether its sockets were passed in.
    pub is_inherited: bool,
    /// Whether a listener beyond loopback accepts every `Host`.
    pub accepts_all_hosts: bool,
}

impl Announcement {
    /// Prints them for an interceptor that listens on `addresses`, with a warning if other machines can reach it.
    pub fn print(&self, addresses: &[Address]) {
        let tcp: Vec<SocketAddr> = addresses.iter().filter_map(Address::tcp).collect();
        let mut places = Vec::new();
        if let (Some((port, _)), Some(urls)) = (self.port, &self.urls) {
            places.push(format!("{} ({})", urls.bare(), bound(port, &tcp)));
        }
        let sockets = addresses.iter().filter(|address| address.tcp().is_none());
        places.extend(sockets.map(|address| Escaped(&address.to_string()).to_string()));
        let mut text = format!(
            "Instance:   {}\nListening:  {}\nTarget:     {}\n",
            Escaped(&self.instance_id),
            places.join(", "),
            self.target,
        );
        let columns = self
            .terminal
            .map_or(usize::MAX, |terminal| terminal.columns);
        let mut add = |label: &str, words: &str| {
            wrap(&format!("{label:12}"), 12, words, columns, &mut text);
        };
        if let Some(urls) = &self.urls {
            add("OpenAI:", &urls.openai());
            add("Anthropic:", &urls.bare());
        }
        add("Adds:", &Escaped(&self.added.join(", ")).to_string());
        match self.port {
            Some((_, origin)) => text.push_str(&format!("Port from:  {origin}\n")),
            None if self.is_inherited => {
                text.push_str(&format!("Socket:     {}\n", PortOrigin::Inherited));
            }
            None => {}
        }
        // A log has no use for it.
        if self.terminal.is_some() {
            let next = "`ic snippet` prints the settings of a client, `ic ui` shows the requests, Ctrl-C stops";
            wrap("Next:       ", 12, next, columns, &mut text);
        }
        text.push_str(&beyond_loopback(&tcp, self.accepts_all_hosts));
        eprint_text(&text);
    }
}

/// The addresses that are bound.
fn bound(port: Port, tcp: &[SocketAddr]) -> String {
    let bound = tcp.iter().map(|address| {
        if address.port() == port.get() {
            address.ip().to_string()
        } else {
            // Sockets that were passed in may have several ports.
            address.to_string()
        }
    });
    bound.collect::<Vec<_>>().join(", ")
}

/// Warnings if other machines can reach one of `addresses`, else an empty text.
pub fn beyond_loopback(addresses: &[SocketAddr], accepts_all_hosts: bool) -> String {
    let mut text = String::new();
    if addresses.iter().all(|address| is_loopback(&address.ip())) {
        return text;
    }
    text.push_str(
        "ic: warning: this listens beyond this machine: every machine that reaches the port can use the target; \
         leave out --host to listen on localhost only\n",
    );
    if accepts_all_hosts {
        text.push_str(
            "ic: warning: every Host is accepted, so that web pages can use the target by DNS rebinding; \
             name the hosts that clients use with --allow-host\n",
        );
    }
    text
}
