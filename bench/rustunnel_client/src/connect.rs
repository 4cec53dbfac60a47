//! TLS and the WebSocket upgrade, the same for both channels.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{client_async, WebSocketStream};

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the server is and whom to trust.
pub struct Server {
    address: String,
    tls: TlsConnector,
}

impl Server {
    pub fn new(address: String, ca_file: &Path) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca_file)? {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Connect to a path; anything but a 101 is a failure.
    pub async fn open(&self, path: &str) -> Result<Socket, Failure> {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let tcp = TcpStream::connect(&self.address).await?;
        let tls = self.tls.connect(name, tcp).await?;
        let (socket, _) = client_async(format!("wss://{}{path}", self.address), tls).await?;
        Ok(socket)
    }
}
