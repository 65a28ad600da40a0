//! A minimal proxy on hyper 1: hyper-util's pool, tokio on one thread, and the same fields.

use std::io;
use std::net::{SocketAddr, TcpListener};

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, server::conn::http1};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::origin::FIELDS;

pub fn run(listener: TcpListener, origin: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
        let host = origin.to_string();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (client, host) = (client.clone(), host.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| forward(&client, &host, request));
                // Clients that disconnect are part of the bench.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn forward(
    client: &Client<HttpConnector, Incoming>,
    host: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri = Uri::builder()
        .scheme("http")
        .authority(host)
        .path_and_query(path)
        .build();
    *request.uri_mut() = uri.unwrap_or_default();
    let fields = request.headers_mut();
    remove_hop_by_hop(fields);
    if let Ok(host) = HeaderValue::from_str(host) {
        fields.insert(HOST, host);
    }
    for (name, value) in FIELDS {
        fields.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    fields.append(VIA, HeaderValue::from_static("1.1 bench"));
    let mut response = client.request(request).await?;
    remove_hop_by_hop(response.headers_mut());
    Ok(response)
}

/// hyper adds framing fields again by the length of the body.
fn remove_hop_by_hop(fields: &mut HeaderMap) {
    fields.remove(CONNECTION);
    fields.remove(TRANSFER_ENCODING);
    fields.remove(UPGRADE);
}
