//! Every kind of fault, and how it is made.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;
use rand::rngs::StdRng;
use testkit::Way;
use tokio::time::{sleep, timeout};

use super::history::Moment;
use super::http::is_ready;
use super::load::{self, Setting};
use super::system::{Joint, Server, System, WINDOW};
use super::watch::Watch;
use crate::process::Process;

/// The longest wait for any condition within a strike.
const PATIENCE: Duration = Duration::from_secs(20);

/// Declares the kinds once, with their names in the report.
macro_rules! kinds {
    ($($kind:ident: $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Kind { $(#[doc = $name] $kind,)* }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its name in the report.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    GatewayKilled: "gateway killed",
    GatewayStopped: "gateway stopped and resumed",
    GatewayStoppedPastItsLeases: "gateway stopped past its leases and resumed",
    GatewayCutOff: "gateway cut off while its copies are dropped",
    GatewayClockStepped: "clock under a gateway stepped",
    WorkerKilled: "worker killed",
    StandbyKilled: "standby worker killed",
    WorkerStopped: "worker stopped and resumed",
    WorkerStoppedPastItsClaim: "worker stopped past its claim and resumed",
    WorkerBetweenMissAndFill: "worker restarted between a miss and its fill",
    TwoWorkersAtOnce: "two workers started at once",
    ClockStepped: "clock under the workers stepped",
    RecorderKilled: "recorder killed",
    RecorderStopped: "recorder stopped and resumed",
    RecorderAway: "recorder away for many windows",
    NatsKilled: "nats-server killed",
    NatsStopped: "nats-server stopped and resumed",
    NatsRestarted: "nats-server restarted",
    NatsWithoutItsStore: "nats-server restarted without its store",
    RouteCut: "route between nats-servers cut",
    MariaDbKilled: "MariaDB killed",
    MariaDbStopped: "MariaDB stopped and resumed",
    MariaDbRestarted: "MariaDB restarted",
    MariaDbAway: "MariaDB away for many windows",
    LinksCut: "connections cut",
    LinksHalfClosed: "connections half-closed",
    LinksDelayed: "connections delayed",
    LinksHeld: "connections that let nothing through",
    DiskFull: "disk full under the images",
    DiskReadOnly: "images read-only",
    MemoryFull: "shared memory full",
    MemoryReadOnly: "shared memory read-only",
    MemoryGone: "shared memory emptied",
    EverythingKilled: "everything killed at once",
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().find(|kind| kind.name() == name).copied();
        found.ok_or_else(|| format!("there is no such fault; there are: {}", names()))
    }
}

impl Kind {
    /// Whether reads of stored images have to go on without an error, through gateways that are not struck
    /// themselves.
    pub(crate) fn leaves_stored_images_readable(self) -> bool {
        use Kind as K;
        match self {
            K::GatewayKilled
            | K::GatewayStopped
            | K::GatewayStoppedPastItsLeases
            | K::GatewayCutOff
            | K::GatewayClockStepped
            | K::WorkerKilled
            | K::StandbyKilled
            | K::WorkerStopped
            | K::WorkerStoppedPastItsClaim
            | K::WorkerBetweenMissAndFill
            | K::TwoWorkersAtOnce
            | K::ClockStepped
            | K::RecorderKilled
            | K::RecorderStopped
            | K::RecorderAway
            | K::NatsKilled
            | K::NatsStopped
            | K::NatsRestarted
            | K::NatsWithoutItsStore
            | K::RouteCut
            | K::DiskFull
            | K::DiskReadOnly
            | K::MemoryFull
            | K::MemoryReadOnly
            | K::MemoryGone => true,
            K::MariaDbKilled | K::MariaDbStopped | K::MariaDbRestarted | K::MariaDbAway => false,
            K::LinksCut | K::LinksHalfClosed | K::LinksDelayed | K::LinksHeld | K::EverythingKilled => false,
        }
    }

    /// Whether reads of cached images have to go on without an error.
    pub(crate) fn leaves_cached_images_readable(self) -> bool {
        matches!(
            self,
            Self::MariaDbKilled | Self::MariaDbStopped | Self::MariaDbRestarted | Self::MariaDbAway
        ) || self.leaves_stored_images_readable()
    }

    /// Whether it can be made with one nats-server, or with two.
    pub(crate) fn is_possible(self, is_cluster: bool) -> bool {
        match self {
            Self::RouteCut => is_cluster,
            // A store that only one of two servers still has is left to the servers to repair.
            Self::NatsWithoutItsStore => !is_cluster,
            _ => true,
        }
    }

    /// Whether it shows how nats-server behaves: its own ends, its store, its connections, the claim of a worker and
    /// windows that are delivered again.
    pub(crate) fn is_of_the_bus(self) -> bool {
        use Kind as K;
        match self {
            K::WorkerKilled
            | K::WorkerStoppedPastItsClaim
            | K::TwoWorkersAtOnce
            | K::RecorderKilled
            | K::RecorderAway
            | K::NatsKilled
            | K::NatsStopped
            | K::NatsRestarted
            | K::NatsWithoutItsStore
            | K::RouteCut
            | K::MariaDbAway
            | K::LinksCut
            | K::LinksHalfClosed
            | K::LinksDelayed
            | K::LinksHeld
            | K::EverythingKilled => true,
            K::GatewayKilled
            | K::GatewayStopped
            | K::GatewayStoppedPastItsLeases
            | K::GatewayCutOff
            | K::GatewayClockStepped
            | K::StandbyKilled
            | K::WorkerStopped
            | K::WorkerBetweenMissAndFill
            | K::ClockStepped
            | K::RecorderStopped
            | K::MariaDbKilled
            | K::MariaDbStopped
            | K::MariaDbRestarted
            | K::DiskFull
            | K::DiskReadOnly
            | K::MemoryFull
            | K::MemoryReadOnly
            | K::MemoryGone => false,
        }
    }

    /// Whether another worker has to take over.
    pub(crate) fn needs_the_standby(self) -> bool {
        matches!(self, Self::WorkerKilled | Self::WorkerStoppedPastItsClaim)
    }

    /// Whether workers that end in it leave cleanly: then no counts are lost.
    pub(crate) fn lets_workers_leave(self) -> bool {
        matches!(self, Self::TwoWorkersAtOnce | Self::ClockStepped | Self::WorkerBetweenMissAndFill)
    }

    /// How often it strikes in one round of the long form.
    pub(crate) fn strikes_in_a_round(self) -> usize {
        use Kind as K;
        match self {
            K::RecorderAway | K::MariaDbAway | K::ClockStepped | K::WorkerStoppedPastItsClaim => 1,
            K::GatewayClockStepped => 1,
            K::WorkerKilled | K::WorkerBetweenMissAndFill | K::TwoWorkersAtOnce | K::NatsWithoutItsStore => 2,
            K::EverythingKilled => 2,
            _ => 3,
        }
    }
}

/// A fault that was made.
#[derive(Debug, Clone)]
pub(crate) struct Strike {
    pub(crate) kind: Kind,
    /// The moment just before it.
    pub(crate) began: Moment,
    /// When everything that the fault had taken away was given back. If a standby has to replace it, the moment
    /// at which it was taken away.
    pub(crate) healed: Moment,
    /// Which gateways were struck themselves.
    pub(crate) gateways: [bool; 2],
    /// Gateways that were killed, and when they were certainly gone.
    pub(crate) killed_gateways: Vec<(usize, Moment)>,
    /// Workers that were killed, with the time since when each process had been running.
    pub(crate) killed_workers: Vec<KilledWorker>,
    /// Whether the clocks of the workers told another time meanwhile.
    pub(crate) stepped_clocks: bool,
    /// Whether JetStream forgot all it had.
    pub(crate) lost_store: bool,
}

/// A worker that was killed.
#[derive(Debug, Clone)]
pub(crate) struct KilledWorker {
    /// Its name in rows.
    pub(crate) worker: String,
    /// When it was killed.
    pub(crate) at: Moment,
}

/// The parts of a run that a strike works with.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) system: Arc<System>,
    pub(crate) shared: Arc<load::Shared>,
    pub(crate) watch: Watch,
    pub(crate) random: StdRng,
    /// For how many windows recorder and MariaDB stay away.
    pub(crate) many_windows: u32,
}

impl Scene {
    /// Makes a fault, and gives back what it took away.
    pub(crate) async fn strike(&mut self, kind: Kind) -> anyhow::Result<Strike> {
        if !kind.leaves_stored_images_readable() && kind.leaves_cached_images_readable() {
            self.fill_cache().await?;
        }
        let mut strike = Strike {
            kind,
            began: self.now(),
            healed: 0,
            gateways: [false; 2],
            killed_gateways: Vec::new(),
            killed_workers: Vec::new(),
            stepped_clocks: false,
            lost_store: false,
        };
        let system = Arc::clone(&self.system);
        match kind {
            Kind::GatewayKilled => {
                let gateway = self.random.random_range(0..2);
                strike.gateways[gateway] = true;
                self.kill_gateway(gateway, &mut strike).await?;
                self.pause(0..500).await;
                system.gateways[gateway].start().await?;
            }
            Kind::GatewayStopped => {
                let gateway = self.random.random_range(0..2);
                strike.gateways[gateway] = true;
                self.stand_still(&system.gateways[gateway], 300..2500).await?;
            }
            Kind::GatewayStoppedPastItsLeases => self.stop_past_leases(&mut strike).await?,
            Kind::GatewayCutOff => self.cut_off_while_dropping().await?,
            Kind::GatewayClockStepped => self.step_clock_of_gateway(&mut strike).await?,
            Kind::WorkerKilled => {
                let owner = self.owner()?;
                strike.began = self.now();
                self.kill_worker(owner, &mut strike).await?;
                strike.healed = strike.began;
                self.pause(0..1000).await;
                system.workers[owner].start().await?;
            }
            Kind::StandbyKilled => {
                let standby = 1 - self.owner()?;
                self.kill_worker(standby, &mut strike).await?;
                self.pause(0..300).await;
                system.workers[standby].start().await?;
            }
            Kind::WorkerStopped => {
                let owner = self.owner()?;
                self.stand_still(&system.workers[owner], 300..2500).await?;
            }
            Kind::WorkerStoppedPastItsClaim => {
                let owner = self.owner()?;
                strike.began = self.now();
                self.stand_still(&system.workers[owner], 5500..7500).await?;
            }
            Kind::WorkerBetweenMissAndFill => self.restart_between_miss_and_fill(&mut strike).await?,
            Kind::TwoWorkersAtOnce => {
                let owner = self.owner()?;
                system.workers[1 - owner].terminate().await?;
                system.workers[owner].terminate().await?;
                self.pause(0..300).await;
                let (one, other) = tokio::join!(system.workers[0].start(), system.workers[1].start());
                one.and(other)?;
            }
            Kind::ClockStepped => {
                strike.stepped_clocks = true;
                self.step_clocks().await?;
            }
            Kind::RecorderKilled => {
                system.recorder.kill().await?;
                self.pause(0..1000).await;
                system.recorder.start().await?;
            }
            Kind::RecorderStopped => self.stand_still(&system.recorder, 300..3000).await?,
            Kind::RecorderAway => {
                if self.random.random() {
                    system.recorder.kill().await?;
                } else {
                    system.recorder.terminate().await?;
                }
                sleep(WINDOW * self.many_windows).await;
                system.recorder.start().await?;
            }
            Kind::NatsKilled => {
                system.nats.kill().await;
                self.pause(50..1500).await;
                system.nats.start_again().await;
            }
            Kind::NatsStopped => {
                system.nats.pause().await;
                self.pause(300..3000).await;
                system.nats.resume().await;
            }
            Kind::NatsRestarted => system.nats.restart().await,
            Kind::NatsWithoutItsStore => {
                // Windows without a row yet would be lost with the store, and their survival is not promised.
                let quiet = self.shared.without_operator().await;
                self.everything_is_recorded().await?;
                strike.began = self.now();
                strike.lost_store = true;
                system.nats.restart_without_its_store().await;
                drop(quiet);
            }
            Kind::RouteCut => {
                let (_, route) = system.second.as_ref().context("there is one nats-server only")?;
                route.cut();
                self.pause(500..8000).await;
                route.heal();
            }
            Kind::MariaDbKilled => {
                system.mariadb.kill().await;
                self.pause(50..1500).await;
                system.mariadb.start_again().await;
            }
            Kind::MariaDbStopped => {
                system.mariadb.pause().await;
                self.pause(300..3000).await;
                system.mariadb.resume().await;
            }
            Kind::MariaDbRestarted => system.mariadb.restart().await,
            Kind::MariaDbAway => {
                system.mariadb.stop().await;
                sleep(WINDOW * self.many_windows).await;
                system.mariadb.start_again().await;
            }
            Kind::LinksCut => {
                for _ in 0..self.random.random_range(1..4) {
                    for joint in self.some_links(&system) {
                        joint.link.cut();
                    }
                    self.pause(50..400).await;
                }
            }
            Kind::LinksHalfClosed => {
                for _ in 0..self.random.random_range(1..4) {
                    for joint in self.some_links(&system) {
                        joint.link.close(Way::BOTH[self.random.random_range(0..2)]);
                    }
                    self.pause(50..400).await;
                }
            }
            Kind::LinksDelayed => {
                let joints = self.some_links(&system);
                for joint in &joints {
                    for way in Way::BOTH {
                        let delay = self.random.random_range(0..400);
                        joint.link.delay(way, Duration::from_millis(delay));
                    }
                }
                self.pause(700..2500).await;
                joints.iter().for_each(|joint| joint.link.clear());
            }
            Kind::LinksHeld => {
                let joints = self.some_links(&system);
                for joint in &joints {
                    joint.link.hold(Way::BOTH[self.random.random_range(0..2)], true);
                }
                self.pause(500..3000).await;
                joints.iter().for_each(|joint| joint.link.clear());
            }
            Kind::DiskFull => self.limit_files(&system.gateways).await?,
            Kind::DiskReadOnly => self.make_read_only(&system.images()).await?,
            Kind::MemoryFull => self.limit_files(&system.workers).await?,
            Kind::MemoryReadOnly => self.make_read_only(&system.shared_dir()).await?,
            // The processes go on without shared files until they start again.
            Kind::MemoryGone => {
                // Moved away first, since the processes go on writing.
                let away = system.shared_dir().with_extension("away");
                match std::fs::rename(system.shared_dir(), &away) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    moved => moved.and_then(|()| std::fs::remove_dir_all(&away))?,
                }
                self.pause(500..2000).await;
            }
            Kind::EverythingKilled => {
                strike.gateways = [true; 2];
                self.kill_everything(&mut strike).await?;
            }
        }
        if strike.healed == 0 {
            strike.healed = self.now();
        }
        Ok(strike)
    }

    fn now(&self) -> Moment {
        self.shared.history.now()
    }

    /// Lets no file of these processes grow for a while. To a process that is a file system without room.
    async fn limit_files(&mut self, processes: &[Process]) -> anyhow::Result<()> {
        let bytes = self.random.random_range(0..100_000);
        processes.iter().try_for_each(|process| process.limit_files(Some(bytes)))?;
        self.pause(500..2000).await;
        processes.iter().try_for_each(|process| process.limit_files(None))
    }

    /// Makes a folder and those in it read-only for a while.
    async fn make_read_only(&mut self, folder: &Path) -> anyhow::Result<()> {
        set_writable(folder, false)?;
        self.pause(500..2000).await;
        set_writable(folder, true)
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        let pause = self.random.random_range(milliseconds);
        sleep(Duration::from_millis(pause)).await;
    }

    async fn stand_still(
        &mut self,
        process: &Process,
        milliseconds: std::ops::Range<u64>,
    ) -> anyhow::Result<()> {
        process.pause().await?;
        self.pause(milliseconds).await;
        process.resume().await
    }

    /// The number of the worker that serves.
    fn owner(&self) -> anyhow::Result<usize> {
        let sight = self.watch.owner().context("no worker has ever served")?;
        Ok(usize::from(sight.worker == "memcache-2"))
    }

    async fn kill_gateway(&self, number: usize, strike: &mut Strike) -> anyhow::Result<()> {
        self.system.gateways[number].kill().await?;
        strike.killed_gateways.push((number, self.now()));
        Ok(())
    }

    async fn kill_worker(&self, number: usize, strike: &mut Strike) -> anyhow::Result<()> {
        let worker = format!("memcache-{}", number + 1);
        self.system.workers[number].kill().await?;
        strike.killed_workers.push(KilledWorker { worker, at: self.now() });
        Ok(())
    }

    /// Waits until another worker than this incarnation says that it serves.
    async fn served_by_another(&self, former: &str) -> anyhow::Result<()> {
        let from = self.now();
        self.wait_for("another worker takes over", async || {
            Ok(self.watch.successor(Some(former), from).is_some())
        })
        .await
    }

    async fn wait_for(
        &self,
        what: &str,
        mut check: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let waiting = async {
            while !check().await? {
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, waiting).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))?
    }

    /// Stops a gateway that has copies, has these images replaced through the other one, and lets it go on when
    /// requests for them have waited for a while.
    async fn stop_past_leases(&mut self, strike: &mut Strike) -> anyhow::Result<()> {
        let system = Arc::clone(&self.system);
        let stopped = self.random.random_range(0..2);
        strike.gateways[stopped] = true;
        let keys = [0; 4].map(|_| self.shared.some_key(&mut self.random));
        for key in keys {
            self.shared.make_copy(stopped, key).await;
        }
        system.gateways[stopped].pause().await?;
        let shared = Arc::clone(&self.shared);
        let stop = async {
            self.pause(500..4000).await;
            system.gateways[stopped].resume().await
        };
        tokio::join!(stop, shared.replace_while_it_stands_still(stopped, &keys)).0
    }

    /// Replaces images of which a gateway has copies through the other one, and cuts the connection over which
    /// it is told so: before, and while that is on its way.
    async fn cut_off_while_dropping(&mut self) -> anyhow::Result<()> {
        let system = Arc::clone(&self.system);
        let shared = Arc::clone(&self.shared);
        for round in 0..6 {
            let gateway = self.random.random_range(0..2);
            let name = system.gateways[gateway].name();
            let joint = system.links.iter().find(|joint| joint.of == name && joint.to == Server::Nats);
            let link = &joint.context("every gateway has its link")?.link;
            let key = shared.some_key(&mut self.random);
            shared.make_copy(gateway, key).await;
            let cut = async {
                self.pause(0..30).await;
                match round {
                    0 | 1 => link.cut(),
                    2 => link.close(Way::BOTH[self.random.random_range(0..2)]),
                    3 => link.delay(Way::ToService, Duration::from_millis(self.random.random_range(0..1500))),
                    4 => link.hold(Way::ToService, true),
                    _ => link.hold(Way::ToServer, true),
                }
            };
            tokio::join!(cut, shared.replace_while_read(gateway, key));
            link.clear();
        }
        Ok(())
    }

    /// Starts a gateway anew with a clock that can be set, and sets it to and fro while its copies are dropped.
    async fn step_clock_of_gateway(&mut self, strike: &mut Strike) -> anyhow::Result<()> {
        let system = Arc::clone(&self.system);
        let number = self.random.random_range(0..2);
        strike.gateways[number] = true;
        let gateway = &system.gateways[number];
        let clock = settable_clock(gateway)?;
        gateway.terminate().await?;
        gateway.start().await?;
        let port = system.gateway_ports[number];
        self.wait_for("the gateway serves", async || Ok(is_ready(port).await)).await?;
        for _ in 0..5 {
            let key = self.shared.some_key(&mut self.random);
            self.shared.make_copy(number, key).await;
            self.step(&clock)?;
            self.shared.replace_while_read(number, key).await;
        }
        gateway.preload("")?;
        gateway.terminate().await?;
        gateway.start().await
    }

    /// Sets a clock somewhere within a minute and a half.
    fn step(&mut self, clock: &Path) -> anyhow::Result<()> {
        let hundredths = self.random.random_range(-9000i64..9000);
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let step = hundredths as f64 / 100.0;
        // The file is replaced at once: half of a number would be another time.
        let next = clock.with_extension("next");
        std::fs::write(&next, format!("{step:+}\n"))?;
        std::fs::rename(&next, clock)?;
        Ok(())
    }

    /// Restarts the worker between misses and their fills.
    ///
    /// Readers miss and have their leases, and the rows that they ask for are held back. Then the worker is stopped or
    /// killed, the other one takes over, and images are replaced through the other gateway. Only now the rows arrive,
    /// and the fills are sent with the leases of the worker that is gone.
    async fn restart_between_miss_and_fill(&mut self, strike: &mut Strike) -> anyhow::Result<()> {
        let system = Arc::clone(&self.system);
        let owner = self.owner()?;
        let former = self.watch.owner().context("no worker has ever served")?.incarnation;
        let struck = self.random.random_range(0..2);
        // Without its rows, it can't read what is not cached.
        strike.gateways[struck] = true;
        let gateway = system.gateways[struck].name();
        let joint = system.links.iter().find(|joint| joint.of == gateway && joint.to == Server::MariaDb);
        let link = &joint.context("every gateway has its link")?.link;
        self.shared.clear().await;
        strike.began = self.now();
        link.hold(Way::ToService, true);
        self.pause(50..300).await;
        let left = async {
            if self.random.random_range(0..3) == 0 {
                self.kill_worker(owner, strike).await?;
            } else {
                system.workers[owner].terminate().await?;
            }
            system.workers[owner].start().await?;
            self.served_by_another(&former).await
        };
        let left = left.await;
        self.pause(0..300).await;
        link.clear();
        left
    }

    /// Starts the workers anew with clocks that can be set, one after the other so that one always serves;
    /// sets them to and fro; and starts them anew as they were.
    async fn step_clocks(&mut self) -> anyhow::Result<()> {
        let system = Arc::clone(&self.system);
        let clocks = system.workers.iter().map(settable_clock).collect::<anyhow::Result<Vec<PathBuf>>>()?;
        self.restart_workers().await?;
        for _ in 0..5 {
            for clock in &clocks {
                self.step(clock)?;
            }
            self.pause(150..500).await;
        }
        system.workers.iter().try_for_each(|worker| worker.preload(""))?;
        self.restart_workers().await
    }

    /// Starts both workers anew, and waits each time until the other one serves.
    async fn restart_workers(&self) -> anyhow::Result<()> {
        for _ in 0..2 {
            let owner = self.owner()?;
            let former = self.watch.owner().context("no worker has ever served")?.incarnation;
            self.system.workers[owner].terminate().await?;
            self.served_by_another(&former).await?;
            // Only when it stands by does the other one's leave hand the claim to it at once.
            let times_before = self.system.workers[owner].log_count("standing by");
            self.system.workers[owner].start().await?;
            self.wait_for("a worker stands by", async || {
                Ok(self.system.workers[owner].log_count("standing by") > times_before)
            })
            .await?;
        }
        Ok(())
    }

    async fn kill_everything(&mut self, strike: &mut Strike) -> anyhow::Result<()> {
        let system = Arc::clone(&self.system);
        let second = system.second.as_ref().map(|(server, _)| server);
        let servers = async {
            let second = async {
                if let Some(second) = second {
                    second.kill().await;
                }
            };
            tokio::join!(system.nats.kill(), second, system.mariadb.kill())
        };
        let services = async {
            for number in 0..system.gateways.len() {
                self.kill_gateway(number, strike).await?;
            }
            system.recorder.kill().await?;
            for number in 0..system.workers.len() {
                self.kill_worker(number, strike).await?;
            }
            anyhow::Ok(())
        };
        tokio::join!(servers, services).1?;
        self.pause(0..500).await;
        let services = async {
            for process in system.processes() {
                process.start().await?;
            }
            anyhow::Ok(())
        };
        let second = async {
            if let Some(second) = second {
                second.start_again().await;
            }
        };
        tokio::join!(system.nats.start_again(), second, system.mariadb.start_again(), services).3
    }

    /// Some of the links, at least one.
    fn some_links<'a>(&mut self, system: &'a System) -> Vec<&'a Joint> {
        let certain = self.random.random_range(0..system.links.len());
        let drawn = system.links.iter().enumerate();
        drawn.filter(|(at, _)| self.random.random() || *at == certain).map(|(_, joint)| joint).collect()
    }

    /// Makes sure that the steady images are cached, and stay so.
    async fn fill_cache(&self) -> anyhow::Result<()> {
        self.shared.be_gentle(true).await;
        self.shared.configure(&Setting { capacity_mb: 96, policy: "lru".to_owned() }).await;
        anyhow::ensure!(self.shared.settle_steady_keys().await, "the cache does not fill");
        Ok(())
    }

    /// Waits until the recorder has made rows of all that JetStream has.
    pub(crate) async fn everything_is_recorded(&self) -> anyhow::Result<()> {
        let bus = self.system.bus("operator").await;
        let consumers = [
            (wire::subject::EVENT_STREAM, wire::subject::WINDOW_CONSUMER),
            (wire::subject::CONFIG_STREAM, wire::subject::CONFIG_CONSUMER),
        ];
        for (stream, consumer) in consumers {
            let subject = format!("$JS.STORE.API.CONSUMER.INFO.{stream}.{consumer}");
            self.wait_for("the recorder has caught up", async || {
                let Ok(reply) = bus.request(subject.clone(), "".into()).await else { return Ok(false) };
                let info: serde_json::Value = serde_json::from_slice(&reply.payload)?;
                Ok(info["num_pending"] == 0 && info["num_ack_pending"] == 0)
            })
            .await?;
        }
        Ok(())
    }
}

/// Makes a folder and those in it read-only, or writable again. Without the folder, it does nothing.
fn set_writable(folder: &Path, is_writable: bool) -> anyhow::Result<()> {
    let set = |folder: &Path| {
        let mode = std::fs::metadata(folder)?.permissions().mode();
        let mode = if is_writable { mode | 0o200 } else { mode & !0o222 };
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set(&entry.path())?;
        }
    }
    set(folder)?;
    Ok(())
}

/// Gives a process a clock that can be set, from its next start on, and says by which file.
fn settable_clock(process: &Process) -> anyhow::Result<PathBuf> {
    let clock = process.folder().join("clock");
    std::fs::write(&clock, "+0\n")?;
    process.preload(&format!(
        "LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
        faketime()?,
        clock.display()
    ))?;
    Ok(clock)
}

/// The library that makes a clock settable, by the command that comes with it.
fn faketime() -> anyhow::Result<String> {
    let found = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let output =
        found.context("faketime does not run: `apt-get install faketime`, or bin/test, which does it")?;
    let library = String::from_utf8(output.stdout)?.trim().to_owned();
    anyhow::ensure!(!library.is_empty(), "faketime names no library");
    Ok(library)
}
