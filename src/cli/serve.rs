//! `sampan serve`: settings, then the program until a signal ends it.

use std::path::PathBuf;

use super::{Serve, print};
use crate::app::App;
use crate::config::{Config, Flags, Network};
use crate::telemetry;

/// Addresses in the greeting: enough to copy one, few enough to read.
const SHOWN: usize = 2;

pub(super) fn run(data: Option<PathBuf>, serve: Serve) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(Flags {
        data,
        config: serve.config,
        addr: serve.addr,
        p2p: serve.p2p,
        network: serve.network,
        follow: serve.follow,
        anonymous: serve.anonymous,
    })?;
    telemetry::start(config.logs);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // One crypto provider for everything that speaks TLS; a second install is what the first did.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = Box::pin(App::start(&config)).await?;
        greet(&app, &config);
        app.run().await
    })
}

fn greet(app: &App, config: &Config) {
    let network = match (config.network, &config.auth) {
        (Network::Lan, None) => "lan: everyone on this LAN may fetch what anonymous clients may pull",
        (Network::Public, None) => "public: everyone may fetch what anonymous clients may pull",
        (Network::Private, None) => {
            "private: whoever has the swarm key may fetch what anonymous clients may pull"
        }
        (Network::Lan, Some(_)) => {
            "lan: everyone on this LAN may fetch what anonymous clients may pull, and members everything"
        }
        (Network::Public, Some(_)) => {
            "public: everyone may fetch what anonymous clients may pull, and members everything"
        }
        (Network::Private, Some(_)) => "private: whoever has the swarm key may fetch everything",
    };
    let row = |left: &str, right: String| vec![format!("  {left}"), right];
    print::line(&format!("sampan {}", env!("CARGO_PKG_VERSION")));
    let mut rows = vec![
        row("name", app.name().to_string()),
        row("peer", app.peer_id().to_string()),
        row("registry", app.url()),
        row("network", network.to_owned()),
    ];
    rows.extend(app.members().map(|name| row("members", name.to_string())));
    // Loopback addresses stand last; `sampan status` shows all.
    rows.extend(app.addresses().iter().take(SHOWN).map(|address| row("p2p", address.to_string())));
    rows.push(row("data", config.data.display().to_string()));
    print::table(&rows);
}
