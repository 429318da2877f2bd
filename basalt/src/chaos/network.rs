//! A network namespace for each process. A bridge joins them, and the link of each can be cut. The
//! bridge is in this program's own namespace: nothing outside sees it, and it disappears together
//! with the processes in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::local::{Host, Hosts};

/// The namespaces of all processes. Dropping this value ends the processes that keep them open.
pub(super) struct Namespaces(BTreeMap<String, Namespace>);

struct Namespace {
    address: IpAddr,
    /// The bridge's end of the link.
    link: String,
    /// A process that sleeps in the namespace and so keeps it open.
    holder: Child,
}

/// Set in the environment of the program that runs in its own namespaces.
const APART: &str = "BASALT_CHAOS_APART";
/// The bridge that joins the namespaces, and its address. Processes also use that address to reach
/// anything else that listens in this program's own namespace.
const BRIDGE: &str = "basalt0";
const BRIDGE_ADDRESS: &str = "10.77.0.1";
/// The last byte of the first process's address.
const FIRST_HOST: u8 = 10;
/// The number of addresses.
const HOSTS_MAX: usize = 200;
/// How long a holder may take to enter a namespace of its own.
const HOLDER_PATIENCE: Duration = Duration::from_secs(5);

/// Runs this program again with the same arguments, in its own network namespace and mount
/// namespace. `None` if this process is already that program.
///
/// # Errors
/// `unshare` does not exist or may not create namespaces.
pub(super) fn run_apart() -> anyhow::Result<Option<ExitStatus>> {
    if std::env::var_os(APART).is_some() {
        return Ok(None);
    }
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--net", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let status = unshare
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(APART, "1")
        .status();
    status.map(Some).context("cannot run unshare (util-linux), which makes the namespaces")
}

// === impl Namespaces ===

impl Namespaces {
    /// Creates a namespace for each of `processes`. The namespaces exist for at most `lifetime`.
    pub(super) async fn make(processes: &[String], lifetime: Duration) -> anyhow::Result<Self> {
        if processes.len() > HOSTS_MAX {
            bail!("{} processes are too many: there are {HOSTS_MAX} addresses", processes.len());
        }
        ip(&["link", "set", "lo", "up"]).await?;
        ip(&["link", "add", BRIDGE, "type", "bridge"]).await?;
        ip(&["address", "add", &format!("{BRIDGE_ADDRESS}/24"), "dev", BRIDGE]).await?;
        ip(&["link", "set", BRIDGE, "up"]).await?;
        let mut namespaces = BTreeMap::new();
        for (process, host) in processes.iter().zip(FIRST_HOST..) {
            namespaces.insert(process.clone(), Namespace::make(host, lifetime).await?);
        }
        Ok(Self(namespaces))
    }

    /// The addresses of the processes, and how to run them there.
    pub(super) fn hosts(&self) -> Hosts {
        let host = |(process, namespace): (&String, &Namespace)| {
            Some((process.clone(), Host { address: namespace.address, enter: namespace.enter()? }))
        };
        Hosts(self.0.iter().filter_map(host).collect())
    }

    /// Cuts the link of a process: frames are lost in both directions, and neither side is
    /// notified.
    pub(super) async fn cut(&self, process: &str) -> anyhow::Result<()> {
        ip(&["link", "set", self.link(process)?, "nomaster"]).await
    }

    /// Heals the link of a process.
    pub(super) async fn heal(&self, process: &str) -> anyhow::Result<()> {
        ip(&["link", "set", self.link(process)?, "master", BRIDGE]).await
    }

    fn link(&self, process: &str) -> anyhow::Result<&str> {
        let namespace = self.0.get(process);
        Ok(&namespace.with_context(|| format!("{process} has no network namespace"))?.link)
    }
}

// === impl Namespace ===

impl Namespace {
    async fn make(host: u8, lifetime: Duration) -> anyhow::Result<Self> {
        let address = IpAddr::V4(Ipv4Addr::new(10, 77, 0, host));
        let holder = Command::new("unshare")
            .args(["--net", "sleep", &lifetime.as_secs().to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run unshare")?;
        let pid = holder.id().context("the holder of a namespace ended at once")?.to_string();
        wait_entered(&pid).await?;
        let link = format!("link{host}");
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid]).await?;
        ip(&["link", "set", &link, "master", BRIDGE]).await?;
        ip(&["link", "set", &link, "up"]).await?;
        let namespace = Self { address, link, holder };
        let own = format!("{address}/24");
        for arguments in [
            ["link", "set", "lo", "up"].as_slice(),
            &["address", "add", &own, "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["route", "add", "default", "via", BRIDGE_ADDRESS],
        ] {
            let enter = namespace.enter().context("the holder of a namespace ended")?;
            let (program, before) = enter.split_first().context("nothing enters a namespace")?;
            run(Command::new(program).args(before).arg("ip").args(arguments)).await?;
        }
        Ok(namespace)
    }

    /// The command prefix that runs a command in this namespace.
    fn enter(&self) -> Option<Vec<OsString>> {
        let pid = self.holder.id()?.to_string();
        Some(["nsenter", "--target", &pid, "--net", "--"].map(OsString::from).to_vec())
    }
}

/// Waits until `pid` is in a different network namespace than this process.
async fn wait_entered(pid: &str) -> anyhow::Result<()> {
    let ours = std::fs::read_link("/proc/self/ns/net")?;
    let entered = async {
        // While the process executes its program, the link may not be readable.
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its == ours) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let entered = tokio::time::timeout(HOLDER_PATIENCE, entered).await;
    entered.context("unshare does not enter a new network namespace")
}

async fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments)).await
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{:?}", command.as_std());
    let output =
        command.output().await.with_context(|| format!("cannot run {shown} (iproute2)"))?;
    if !output.status.success() {
        bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
