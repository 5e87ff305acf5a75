//! The files and the environment a node is started with.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use crate::binaries::Servers;
use crate::error::Result;
use crate::ports::Port;
use crate::process::Launch;

/// Schedulers that do not spin, and no epmd that stays behind.
const MACHINE: &str = "+S 1:1 +SDcpu 1:1 +A 4 +sbwt none +sbwtdcpu none +sbwtdio none \
                       -kernel inet_dist_use_interface {127,0,0,1} -start_epmd false";

/// What a builder was told.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) servers: Option<Servers>,
    pub(super) nodes: usize,
    pub(super) plugins: Vec<String>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) management: bool,
    pub(super) tls: bool,
}

/// A node's ports, kept while it is down.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) amqp: Port,
    pub(super) distribution: Port,
    pub(super) management: Option<Port>,
    pub(super) amqps: Option<Port>,
}

impl Ports {
    pub(super) fn claim(options: &Options) -> Result<Self> {
        let wanted = |wanted: bool| if wanted { Port::claim().map(Some) } else { Ok(None) };
        Ok(Self {
            amqp: Port::claim()?,
            distribution: Port::claim()?,
            management: wanted(options.management)?,
            amqps: wanted(options.tls)?,
        })
    }
}

/// The Erlang name of a node.
pub(super) fn node_name(index: usize) -> String {
    format!("n{index}@localhost")
}

/// The text of `rabbitmq.conf`.
pub(super) fn render(options: &Options, ports: &Ports, folder: &Path) -> String {
    let mut text = format!("listeners.tcp.1 = 127.0.0.1:{}\n", ports.amqp.number());
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} = {value}");
    };
    line("loopback_users", "none");
    line("log.console", "true");
    line("log.console.use_colors", "off");
    line("log.file", "false");
    line("disk_free_limit.absolute", "50MB");
    line("vm_memory_high_watermark.absolute", "1GB");
    // With the default of 60 a frozen node is missed for about a minute.
    line("net_ticktime", "5");
    line("raft.wal_max_size_bytes", "16777216");
    if let Some(port) = &ports.management {
        line("management.tcp.ip", "127.0.0.1");
        line("management.tcp.port", &port.number().to_string());
    }
    if let Some(port) = &ports.amqps {
        let path = |name: &str| folder.join(name).display().to_string();
        line("listeners.ssl.1", &format!("127.0.0.1:{}", port.number()));
        line("ssl_options.cacertfile", &path("ca.crt"));
        line("ssl_options.certfile", &path("server.crt"));
        line("ssl_options.keyfile", &path("server.key"));
        line("ssl_options.verify", "verify_none");
    }
    if options.nodes > 1 {
        line("cluster_partition_handling", "pause_minority");
        line("cluster_formation.peer_discovery_backend", "classic_config");
        for index in 0..options.nodes {
            line(
                &format!("cluster_formation.classic_config.nodes.{}", index + 1),
                &node_name(index),
            );
        }
        // The first node would retry ten times while the others wait for it.
        line("cluster_formation.discovery_retry_limit", "1");
        line("cluster_formation.discovery_retry_interval", "50");
    }
    for (name, value) in &options.settings {
        line(name, value);
    }
    text
}

/// The plugins file.
pub(super) fn plugins(options: &Options) -> String {
    let mut plugins = options.plugins.clone();
    if options.management {
        plugins.push("rabbitmq_management".to_owned());
    }
    format!("[{}].\n", plugins.join(","))
}

/// The program with everything it must not take from the system.
pub(super) fn launch(
    launch: Launch,
    name: &str,
    folder: &Path,
    home: &Path,
    epmd: u16,
    ports: &Ports,
) -> Launch {
    let script = folder.join("control.erl");
    let machine = format!("{MACHINE} -eval file:script(\"{}\")", script.display());
    let number = |port: &Port| OsString::from(port.number().to_string());
    let path = |name: &str| folder.join(name).into_os_string();
    let env: [(&str, OsString); 18] = [
        ("HOME", home.into()),
        ("ERL_EPMD_PORT", epmd.to_string().into()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODENAME", name.into()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODE_PORT", number(&ports.amqp)),
        ("RABBITMQ_DIST_PORT", number(&ports.distribution)),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
        ("RABBITMQ_MNESIA_BASE", path("mnesia")),
        ("RABBITMQ_LOG_BASE", path("logs")),
        ("RABBITMQ_PID_FILE", path("pid")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", path("generated")),
        // Makes the script become the Erlang machine instead of waiting for it.
        ("RUNNING_UNDER_SYSTEMD", "true".into()),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", machine.into()),
        ("ERL_CRASH_DUMP_SECONDS", "0".into()),
    ];
    env.into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}
