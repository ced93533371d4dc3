//! An S3 server on this machine, at a distance: each answer comes some milliseconds later than it would.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use testkit::{Link, Way, free_port};

use crate::server::{Server, find};
use crate::system::Settings;

/// The time that the way to the server and back takes more.
pub(crate) const DISTANCE: Duration = Duration::from_millis(10);
/// The account of the server and the bucket in it.
const ACCOUNT: (&str, &str) = ("measured", "measured-secret");
const BUCKET: &str = "images";

/// The server, which keeps its objects in a temporary folder, and the link to it.
#[derive(Debug)]
pub(crate) struct S3 {
    _server: Server,
    link: Link,
}

impl S3 {
    /// Starts it.
    ///
    /// # Errors
    /// When the program is not there, or does not listen.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let program = find("versitygw").context(
            "there is no S3 server: run `go install github.com/versity/versitygw/cmd/versitygw@v1` and put it on the PATH",
        )?;
        let port = free_port();
        let options = ["--quiet", "--keep-alive", "--region", "us-east-1"];
        let shown = format!("versitygw {} --port 127.0.0.1:{port} posix FOLDER\n", options.join(" "));
        let server = Server::start("versitygw", port, shown, |folder| {
            let objects = folder.join("objects");
            std::fs::create_dir_all(objects.join(BUCKET))?;
            let mut command = Command::new(program);
            command.args(options).args(["--port", &format!("127.0.0.1:{port}")]);
            command.env("ROOT_ACCESS_KEY", ACCOUNT.0).env("ROOT_SECRET_KEY", ACCOUNT.1);
            command.arg("posix").arg(objects);
            Ok(command)
        });
        let server = server.await?;
        let link = Link::to(port).await?;
        for way in Way::BOTH {
            link.delay(way, DISTANCE / 2);
        }
        Ok(Self { _server: server, link })
    }

    /// The settings of a gateway that keeps its images there.
    pub(crate) fn settings(&self) -> Settings {
        vec![
            ("BLOB_URL", format!("s3://{BUCKET}/pixcache")),
            ("AWS_ACCESS_KEY_ID", ACCOUNT.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", ACCOUNT.1.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.link.port())),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }
}
