//! The peers as processes: Debian's packages with sensible settings, which are printed, and the bare ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use testkit::free_port;

use crate::server::{Server, find};

/// Programs that are no part of pixcache.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) varnish: PathBuf,
    pub(crate) nginx: PathBuf,
    pub(crate) memcached: PathBuf,
}

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// The packages to install, when some are missing.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let wanted = [("varnishd", "varnish"), ("nginx", "nginx-light"), ("memcached", "memcached")];
        let found = wanted.map(|(program, _)| find(program));
        let missing: Vec<_> = wanted
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .map(|((_, package), _)| *package)
            .collect();
        match found {
            [Some(varnish), Some(nginx), Some(memcached)] => Ok(Self { varnish, nginx, memcached }),
            _ => anyhow::bail!(
                "peers are missing: run `apt-get install --no-install-recommends {}`",
                missing.join(" ")
            ),
        }
    }
}

impl Server {
    /// One nginx with two ports: at its own it sends files, and at the second one it sends its cached copies of them.
    pub(crate) async fn nginx(program: &Path, root: &Path) -> anyhow::Result<(Self, u16)> {
        let (files, cached) = (free_port(), free_port());
        let config = format!(
            "worker_processes auto;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  default_type image/gif;
  open_file_cache max=10000 inactive=1h;
  open_file_cache_valid 1h;
  proxy_cache_path cache levels=1:2 keys_zone=images:16m max_size=1g inactive=1h use_temp_path=off;
  server {{
    listen 127.0.0.1:{files} backlog=4096;
    root {root};
  }}
  server {{
    listen 127.0.0.1:{cached} backlog=4096;
    location / {{
      proxy_pass http://127.0.0.1:{files};
      proxy_cache images;
      proxy_cache_valid 200 1h;
      add_header X-Cache $upstream_cache_status;
    }}
  }}
}}
",
            root = root.display()
        );
        let shown = config.clone();
        let server = Self::start("nginx", cached, shown, |folder| {
            // Settings for files that nginx would otherwise write into the machine's folders.
            let mut own = String::from("daemon off;\npid nginx.pid;\nerror_log stderr warn;\n");
            // If the master is root, its workers run as another user, which may not read temporary folders.
            if rustix::process::geteuid().is_root() {
                own += "user root;\n";
            }
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("  {kind}_temp_path tmp_{kind};\n"));
            let config = config.replacen("http {\n", &format!("http {{\n{}", temporary.concat()), 1);
            std::fs::write(folder.join("nginx.conf"), own + &config)?;
            let mut command = Command::new(program);
            command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
            Ok(command)
        });
        let mut server = server.await?;
        server.port = files;
        Ok((server, cached))
    }

    /// Varnish, in front of another server.
    pub(crate) async fn varnish(program: &Path, behind: u16) -> anyhow::Result<Self> {
        let port = free_port();
        let config = format!(
            "vcl 4.1;
backend files {{ .host = \"127.0.0.1\"; .port = \"{behind}\"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
"
        );
        let options = ["-F", "-j", "none", "-s", "malloc,512m"];
        let shown = format!("varnishd {} -a 127.0.0.1:{port} -f default.vcl\n{config}", options.join(" "));
        Self::start("Varnish", port, shown, |folder| {
            std::fs::write(folder.join("default.vcl"), &config)?;
            let mut command = Command::new(program);
            command.args(options).arg("-a").arg(format!("127.0.0.1:{port}"));
            command.arg("-f").arg(folder.join("default.vcl")).arg("-n").arg(folder.join("varnish"));
            Ok(command)
        })
        .await
    }

    /// memcached.
    pub(crate) async fn memcached(program: &Path) -> anyhow::Result<Self> {
        let port = free_port();
        let threads = crate::load::threads().to_string();
        let options = ["-l", "127.0.0.1", "-m", "512", "-I", "8m", "-c", "4096", "-t", &threads];
        let shown = format!("memcached {} -p {port}\n", options.join(" "));
        Self::start("memcached", port, shown, |_| {
            let mut command = Command::new(program);
            command.args(options).args(["-p", &port.to_string()]);
            if rustix::process::geteuid().is_root() {
                command.args(["-u", "root"]);
            }
            Ok(command)
        })
        .await
    }

    /// A bare server, which listens on a port of its own.
    pub(crate) async fn bare(
        kind: &str,
        arguments: &[&str],
        secrets: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let port = free_port();
        let port_text = port.to_string();
        let mut all = vec!["--port", &port_text];
        all.extend(arguments);
        Self::start_bare(kind, port, &all, secrets).await
    }

    /// A bare peer that listens on no port.
    pub(crate) async fn bare_echo(arguments: &[&str], secrets: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_bare("echo", 0, arguments, secrets).await
    }

    async fn start_bare(
        kind: &str,
        port: u16,
        arguments: &[&str],
        secrets: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program has a path")?;
        Self::start(kind, port, String::new(), |_| {
            let mut command = Command::new(program);
            command.args(["bare", kind]).args(arguments).envs(secrets.iter().copied());
            Ok(command)
        })
        .await
    }
}
