//! The relay that one writes in ten minutes: tokio, one thread, `copy_bidirectional` with 64 KiB
//! for each direction.
//!
//! `tokio-relay BACKEND-PORT` prints the port on which it listens.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

const SIZE: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let usage = || io::Error::other("usage: tokio-relay BACKEND-PORT");
    let backend: u16 = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .ok_or_else(usage)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(relay(backend))
}

async fn relay(backend: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            client.set_nodelay(true)?;
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, backend)).await?;
            server.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut client, &mut server, SIZE, SIZE).await
        });
    }
}
