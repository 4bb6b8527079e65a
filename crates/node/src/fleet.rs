//! The replica's place in a fleet: its API servers, its name, and where others reach it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result, bail, ensure};
use anyserve_core::Directory;
use anyserve_server::AdminToken;
use anyserve_uplink::{Endpoint, Link, LinkConfig, Running};

use crate::Options;
use crate::client_tls::{ClientFiles, ClientTls};

/// Longest name of a replica, in bytes.
const MAX_ID: usize = 256;

/// What was asked for, checked as far as that goes without a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetSettings {
    api_servers: Vec<Endpoint>,
    replica_id: Option<String>,
    advertise: Option<Advertised>,
    token: Option<AdminToken>,
    tls: ClientTls,
}

/// What was given for `--advertise`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Advertised {
    endpoint: Endpoint,
    /// It says itself whether it is encrypted.
    whole: bool,
}

/// A replica that is part of a fleet, or alone.
#[derive(Debug, Default)]
pub(crate) struct Membership(Option<(Arc<Link>, Option<Running>)>);

// === impl FleetSettings ===

impl FleetSettings {
    pub(crate) fn try_new(options: &Options) -> Result<Self> {
        let api_servers = api_servers(options.api_server.as_deref().unwrap_or_default())?;
        if api_servers.is_empty() {
            ensure!(options.replica_id.is_none(), "--replica-id needs --api-server: nobody else is told the name");
            ensure!(options.advertise.is_none(), "--advertise needs --api-server: nobody else is told the address");
        }
        if let Some(id) = &options.replica_id {
            check_id(id)?;
        }
        if let Some(token) = &options.cluster_token {
            token.check().context("--cluster-token")?;
        }
        let advertise = options.advertise.as_deref().map(advertised).transpose()?;
        let files = ClientFiles {
            ca: options.api_server_ca.clone(),
            certificate: options.api_server_cert.clone(),
            key: options.api_server_key.clone(),
        };
        ensure!(
            files.is_empty() || !api_servers.is_empty() || options.object_peer.is_some(),
            "--api-server-ca, --api-server-cert and --api-server-key need --api-server or --object-peer: this replica \
             connects to nobody"
        );
        Ok(Self {
            api_servers,
            replica_id: options.replica_id.clone(),
            advertise,
            token: options.cluster_token.clone(),
            tls: files.read("--api-server")?,
        })
    }

    /// How this replica talks TLS with API servers and other replicas.
    pub(crate) fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// The link to the API servers, of a replica that listens at `address`, with TLS if it is `secure`. A replica without
    /// API servers is alone.
    ///
    /// # Errors
    /// Where it is not known how others reach the replica, and how to say it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn join(&self, address: SocketAddr, secure: bool) -> Result<Membership> {
        let Some(config) = self.config(address, secure)? else { return Ok(Membership(None)) };
        let link = Link::try_new(config).map_err(|error| Error::msg(error.message))?;
        Ok(Membership(Some((link, None))))
    }

    fn config(&self, address: SocketAddr, secure: bool) -> Result<Option<LinkConfig>> {
        let Some(first) = self.api_servers.first() else { return Ok(None) };
        let endpoint = match &self.advertise {
            Some(given) => given.url(secure),
            None => url(&own_address(address, first)?.to_string(), secure),
        };
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        Ok(Some(LinkConfig {
            api_servers: self.api_servers.clone(),
            id: self.replica_id.clone().unwrap_or_else(|| host.to_owned()),
            epoch: now_ms(),
            endpoint,
            token: self.token.as_ref().map(|token| token.reveal().to_owned().into()),
            tls: self.tls.tls().clone(),
        }))
    }
}

/// The endpoints in these texts, each of which has one or, separated by commas, several.
fn api_servers(texts: &[String]) -> Result<Vec<Endpoint>> {
    let each = texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
    each.map(|text| text.parse().map_err(Error::new).context("--api-server")).collect()
}

fn check_id(id: &str) -> Result<()> {
    let len = id.len();
    ensure!((1..=MAX_ID).contains(&len), "--replica-id has {len} bytes, it takes 1 to {MAX_ID}");
    ensure!(id.bytes().all(|byte| byte.is_ascii_graphic()), "--replica-id '{id}': a name is one word of visible ASCII");
    Ok(())
}

fn advertised(text: &str) -> Result<Advertised> {
    let endpoint = text.parse().map_err(Error::new).context("--advertise")?;
    Ok(Advertised { endpoint, whole: text.contains("://") })
}

fn url(host: &str, secure: bool) -> String {
    format!("{}://{host}", if secure { "https" } else { "http" })
}

/// Where others reach a replica that listens at `address`.
fn own_address(address: SocketAddr, api_server: &Endpoint) -> Result<SocketAddr> {
    if !address.ip().is_unspecified() {
        return Ok(address);
    }
    let ip = own_ip(api_server).with_context(|| {
        format!("the address at which {api_server} reaches this replica is not known: give --advertise HOST:PORT")
    })?;
    Ok(SocketAddr::new(ip, address.port()))
}

/// The address that this machine has on the way to an API server. Nothing is sent.
fn own_ip(api_server: &Endpoint) -> Result<IpAddr> {
    let text = api_server.to_string();
    let host = text.strip_prefix("https://").unwrap_or(&text);
    let any = |any: &str| {
        UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(host)?;
            socket.local_addr()
        })
    };
    match any("0.0.0.0").or_else(|_| any("::")) {
        Ok(own) => Ok(own.ip()),
        Err(error) => bail!("there is no way to {host}: {error}"),
    }
}

/// The start of this replica: it grows with every one.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

// === impl Advertised ===

impl Advertised {
    fn url(&self, secure: bool) -> String {
        let text = self.endpoint.to_string();
        let host = text.strip_prefix("https://").unwrap_or(&text);
        url(host, if self.whole { self.endpoint.secure() } else { secure })
    }
}

// === impl Membership ===

impl Membership {
    /// The way to other replicas.
    pub(crate) fn uplink(&self) -> Option<Arc<dyn anyserve_core::Uplink>> {
        self.0.as_ref().map(|(link, _)| Arc::clone(link) as Arc<dyn anyserve_core::Uplink>)
    }

    /// Announces what the directory has from now on.
    pub(crate) fn announce(&mut self, directory: &(impl Directory + Clone + Send + Sync + 'static)) -> Result<()> {
        if let Some((link, running)) = &mut self.0 {
            *running = Some(link.start(directory).map_err(|error| Error::msg(error.message))?);
        }
        Ok(())
    }

    /// Tells the API servers that the replica takes no more requests; a second at most.
    pub(crate) async fn drain(&self) {
        if let Some((link, _)) = &self.0 {
            link.drain().await;
        }
    }

    /// Tells the API servers that the replica goes; a second at most.
    pub(crate) async fn leave(self) {
        if let Some((link, _running)) = &self.0 {
            link.leave().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: Options) -> Result<FleetSettings> {
        FleetSettings::try_new(&Options { api_server: Some(vec!["http://127.0.0.1:8080".into()]), ..options })
    }

    fn refused(options: Options) -> String {
        format!("{:#}", settings(options).unwrap_err())
    }

    /// Endpoint and name of a replica that listens there.
    fn seen(options: Options, address: &str, secure: bool) -> (String, String) {
        let config = settings(options).unwrap().config(address.parse().unwrap(), secure).unwrap().unwrap();
        (config.endpoint, config.id)
    }

    #[test]
    fn api_servers_are_repeated_or_listed() {
        let texts = ["http://a:1, b:2,".to_owned(), "https://c".to_owned()];
        let shown: Vec<_> = api_servers(&texts).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:1", "b:2", "https://c:443"]);
        let error = format!("{:#}", api_servers(&["a:1,b".to_owned()]).unwrap_err());
        assert!(error.starts_with("--api-server: endpoint 'b' has no port"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_named_with_its_option() {
        let none = Options::default;
        for (len, fits) in [(0, false), (1, true), (255, true), (256, true), (257, false)] {
            assert_eq!(settings(Options { replica_id: Some("x".repeat(len)), ..none() }).is_ok(), fits, "{len}");
        }
        let message = refused(Options { replica_id: Some("a b".into()), ..none() });
        assert!(message.starts_with("--replica-id 'a b'"), "{message}");
        let message = refused(Options { advertise: Some("host".into()), ..none() });
        assert!(message.starts_with("--advertise: endpoint 'host' has no port"), "{message}");
        let message = refused(Options { cluster_token: Some("a b".to_owned().into()), ..none() });
        assert!(message.starts_with("--cluster-token: a token is one word"), "{message}");
        let message = refused(Options { api_server_ca: Some("none".into()), ..none() });
        assert!(message.starts_with("--api-server-ca: none cannot be read"), "{message}");
        let alone = Options { replica_id: Some("a".into()), ..none() };
        let message = format!("{:#}", FleetSettings::try_new(&alone).unwrap_err());
        assert!(message.contains("needs --api-server"), "{message}");
        let alone = Options { api_server_ca: Some("none".into()), ..none() };
        let message = format!("{:#}", FleetSettings::try_new(&alone).unwrap_err());
        assert!(message.contains("need --api-server or --object-peer"), "{message}");
    }

    #[test]
    fn a_replica_without_api_servers_is_alone() {
        let alone = FleetSettings::try_new(&Options::default()).unwrap();
        assert!(alone.join("127.0.0.1:1".parse().unwrap(), false).unwrap().uplink().is_none());
    }

    #[test]
    fn others_reach_a_replica_where_it_listens_or_where_it_says() {
        let none = Options::default;
        let reached = |advertise: &str, secure| {
            seen(Options { advertise: Some(advertise.into()), ..none() }, "127.0.0.1:8000", secure)
        };
        let both = |endpoint: &str| (endpoint.to_owned(), "a:1".to_owned());
        assert_eq!([reached("a:1", false), reached("a:1", true)], ["http://a:1", "https://a:1"].map(both));
        assert_eq!(
            [reached("https://a:1", false), reached("http://a:1", true)],
            ["https://a:1", "http://a:1"].map(both)
        );
        let api_server: Endpoint = "127.0.0.1:9".parse().unwrap();
        let own = |address: &str| own_address(address.parse().unwrap(), &api_server).unwrap().to_string();
        assert_eq!([own("127.0.0.1:8000"), own("0.0.0.0:8000")], ["127.0.0.1:8000", "127.0.0.1:8000"]);
        assert_eq!(own("10.0.0.1:8000"), "10.0.0.1:8000");
        let nowhere: Endpoint = "no-such-host.invalid:1".parse().unwrap();
        let error = format!("{:#}", own_address("0.0.0.0:8000".parse().unwrap(), &nowhere).unwrap_err());
        assert!(error.contains("give --advertise"), "{error}");
        let expected = ("http://10.0.0.1:8000".to_owned(), "10.0.0.1:8000".to_owned());
        assert_eq!(seen(none(), "10.0.0.1:8000", false), expected);
        assert_eq!(seen(Options { replica_id: Some("a".into()), ..none() }, "10.0.0.1:8000", true).1, "a");
    }
}
