//! One run: the system is started, then broken and left to recover again and again, and checked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, sleep, timeout};

use super::check::configuration::Said;
use super::check::durability::Swept;
use super::check::statistics::{self, Counted, UNREPORTED};
use super::check::{self, Struck};
use super::history::{CacheWord, Did, Moment, Record, seconds};
use super::http::is_ready;
use super::load::{InForce, Load, Setting, Silence};
use super::plan::Plan;
use super::report::Report;
use super::rows::{self, WindowRow};
use super::strike::{Kind, Scene};
use super::system::{FIRST_CAPACITY_MB, System};
use super::watch::Watch;

/// How long the system may take to be well again before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take in a moment of calm until all counts are in rows. A window that a lost connection delayed is
/// delivered again after seconds.
const COUNTED_SOON: Duration = Duration::from_secs(20);
/// How long it may take until a worker has found what another one has written.
const FOUND_SOON: Duration = Duration::from_secs(3);
/// How often such a condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same where it reads all rows of the statistics.
const COUNT_EVERY: Duration = Duration::from_millis(150);
/// For how many windows recorder and MariaDB stay away.
const MANY_WINDOWS: u32 = 60;
const MANY_WINDOWS_ONCE: u32 = 720;

/// Observations of a run besides the history.
#[derive(Debug, Default)]
struct Seen {
    struck: Vec<Struck>,
    calms: Vec<(Moment, Moment)>,
    said: Vec<Said>,
    counted: Vec<Counted>,
    /// Processes that ended, and waits that timed out.
    troubles: Vec<String>,
}

/// Breaks a system as the plan says.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Report> {
    let began = Instant::now();
    let system = Arc::new(System::start(&plan.binaries, plan.is_cluster).await?);
    if all_ready(&system).await.is_none() {
        anyhow::bail!("the system does not get ready:{}", system.logs());
    }
    println!("ready after {:.1} s", began.elapsed().as_secs_f64());
    let load = Load::start(system.gateway_ports, plan.seed, plan.pace());
    let shared = Arc::clone(load.shared());
    let watch = Watch::start(&system, &shared).await;
    let random = StdRng::seed_from_u64(plan.seed);
    let mut scene =
        Scene { system: Arc::clone(&system), shared: Arc::clone(&shared), watch, random, many_windows: 0 };
    let mut seen = Seen::default();
    let settled = async {
        while !(shared.settle_steady_keys().await && scene.watch.owner().is_some()) {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, settled).await.context("the cache does not fill")?;

    let until = plan.length.map(|length| began + length);
    let mut round = 0;
    loop {
        let mut kinds = plan.kinds.clone();
        kinds.shuffle(&mut scene.random);
        for kind in kinds {
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let is_once = !plan.is_short() && round == 0;
            scene.many_windows = if is_once { MANY_WINDOWS_ONCE } else { MANY_WINDOWS };
            let strikes = if plan.is_short() { 1 } else { kind.strikes_in_a_round() };
            let done = strike_and_look(&mut scene, kind, strikes, &mut seen).await;
            if let Err(error) = done {
                seen.troubles.push(format!("{}: {error:#}{}", kind.name(), system.logs()));
            }
            if !seen.troubles.is_empty() {
                break;
            }
        }
        round += 1;
        let is_over = until.is_none_or(|until| Instant::now() >= until);
        if is_over || !seen.troubles.is_empty() {
            break;
        }
    }
    finish(plan, scene, load, seen).await
}

/// Makes faults of one kind, sees to it that all is well after each, and has everything read back in a
/// moment of calm.
async fn strike_and_look(
    scene: &mut Scene,
    kind: Kind,
    strikes: usize,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    for _ in 0..strikes {
        let strike = scene.strike(kind).await?;
        let healed = strike.healed;
        let ready = all_ready(&scene.system).await.map(|()| scene.shared.history.now());
        let recorded = recorded(scene).await;
        println!(
            "{:8.1} s  {}: {:.1} s, ready after {}, recorded after {}",
            seconds(strike.began),
            kind.name(),
            seconds(strike.healed.max(strike.began) - strike.began),
            after(ready, healed),
            after(recorded, healed),
        );
        seen.struck.push(Struck { strike, ready, recorded });
        anyhow::ensure!(ready.is_some(), "the gateways do not get ready again");
        anyhow::ensure!(recorded.is_some(), "windows do not become rows again");
        // The clients go on meanwhile.
        scene.shared.read_back().await;
    }
    scene.shared.be_gentle(false).await;
    let shared = Arc::clone(&scene.shared);
    let begin = Instant::now();
    let silence = shared.silence().await;
    if begin.elapsed() > Duration::from_secs(1) {
        println!("{:8} s  the last answer after {:.1} s", "", begin.elapsed().as_secs_f64());
    }
    calm(scene, seen, &silence).await?;
    seen.troubles.extend(scene.system.ended_by_themselves());
    Ok(())
}

fn after(moment: Option<Moment>, healed: Moment) -> String {
    moment.map_or("never".to_owned(), |moment| format!("{:.2} s", seconds(moment.saturating_sub(healed))))
}

/// Waits until nothing is pending or open any more, and has everything read back.
async fn calm(scene: &Scene, seen: &mut Seen, _silence: &Silence<'_>) -> anyhow::Result<()> {
    let tables = &scene.system.tables;
    let mut last = None;
    let pending = async {
        loop {
            match rows::pending(tables, &scene.system.gateway_account).await {
                Ok((0, open)) if open.is_empty() => return,
                // Or MariaDB is just getting up.
                Ok(other) => last = Some(other),
                Err(_) => {}
            }
            sleep(LOOK_EVERY).await;
        }
    };
    let start = scene.shared.history.now();
    if timeout(PATIENCE, pending).await.is_err() {
        anyhow::bail!(
            "notes or transactions remain: {:?}",
            rows::pending(tables, &scene.system.gateway_account).await
        );
    }
    let calm = scene.shared.history.now();
    scene.shared.read_back().await;
    let (at, in_force) = in_force(scene).await?;
    seen.said.push(Said { at, in_force });
    seen.calms.push((calm, at));
    seen.counted.push(counted(scene, seen).await?);
    if seconds(calm - start) > 1.0 {
        println!(
            "{:8.1} s  calm after {:.1} s, last pending: {last:?}",
            seconds(calm),
            seconds(calm - start)
        );
    }
    Ok(())
}

/// The configuration in force by both gateways, and the time of the question. A change whose writer lost its claim
/// before the acknowledgement is found within a second by the worker that serves.
async fn in_force(scene: &Scene) -> anyhow::Result<(Moment, [Option<InForce>; 2])> {
    let begin = Instant::now();
    loop {
        let rows = rows::properties(&scene.system.tables).await.context("reading cache_properties")?;
        let at = scene.shared.history.now();
        let in_force = [scene.shared.in_force(0).await, scene.shared.in_force(1).await];
        let last =
            rows.last().map(|row| Setting { capacity_mb: row.capacity_mb, policy: row.policy.clone() });
        let is_last = |said: &Option<InForce>| said.as_ref().is_some_and(|said| said.setting == last);
        // A difference that is left after this time is found by the check.
        if in_force.iter().all(is_last) || begin.elapsed() >= FOUND_SOON {
            return Ok((at, in_force));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The sums of the rows, once all counts since the last time are in them: all near hits are reported, and the
/// windows up to then have their rows.
async fn counted(scene: &Scene, seen: &Seen) -> anyhow::Result<Counted> {
    let (history, tables) = (&scene.shared.history, &scene.system.tables);
    let before = seen.counted.last().copied().unwrap_or_default();
    let at = history.now();
    let (mut records, _) = history.copy();
    records.retain(|record| record.start >= before.at);
    let sights = scene.watch.sights();
    let owner = scene.watch.owner().context("no worker has ever served")?.incarnation;
    let begin = Instant::now();
    loop {
        let windows = rows::windows(tables, history).await.context("reading cache_stats")?;
        let now = Counted::of(&windows, at);
        let is_later = |window: &WindowRow| window.incarnation == owner && window.start >= at + UNREPORTED;
        let is_complete = windows.iter().any(is_later)
            && statistics::is_complete(&records, &windows, &seen.struck, &sights, before, now);
        // Counts that are missing after this time are found by the check.
        if is_complete || begin.elapsed() >= COUNTED_SOON {
            return Ok(now);
        }
        sleep(COUNT_EVERY).await;
    }
}

/// Waits until every gateway finds all parts of the system.
async fn all_ready(system: &System) -> Option<()> {
    let ready = async {
        for port in system.gateway_ports {
            while !is_ready(port).await {
                sleep(LOOK_EVERY).await;
            }
        }
    };
    timeout(PATIENCE, ready).await.ok()
}

/// When windows become rows.
async fn recorded(scene: &Scene) -> Option<Moment> {
    let recorded = async {
        while !rows::is_up_to_date(&scene.system.tables).await.is_ok_and(|is| is) {
            sleep(LOOK_EVERY).await;
        }
        scene.shared.history.now()
    };
    timeout(PATIENCE, recorded).await.ok()
}

/// Ends the load, has the worker hand over its last windows and a gateway sweep, reads everything back once
/// more, and checks.
async fn finish(plan: &Plan, scene: Scene, load: Load, mut seen: Seen) -> anyhow::Result<Report> {
    let system = &scene.system;
    let shared = Arc::clone(&scene.shared);
    let silence = shared.silence().await;
    let mut swept = Swept::default();
    if seen.troubles.is_empty() {
        let ended = async {
            calm(&scene, &mut seen, &silence).await?;
            swept = sweep(&scene).await?;
            calm(&scene, &mut seen, &silence).await?;
            for worker in &system.workers {
                worker.terminate().await?;
            }
            scene.everything_is_recorded().await
        };
        if let Err(error) = ended.await {
            seen.troubles.push(format!("{error:#}{}", system.logs()));
        }
    }
    drop(silence);
    load.stop().await?;
    let windows = rows::windows(&system.tables, &shared.history).await.context("reading cache_stats")?;
    let properties = rows::properties(&system.tables).await.context("reading cache_properties")?;
    let ended = shared.history.now();
    let (records, images) = shared.history.copy();
    let sights = scene.watch.sights();
    let samples = scene.watch.samples();
    let skewed = skewed(&seen.struck, &sights);
    let first = Setting { capacity_mb: FIRST_CAPACITY_MB, policy: "lru".to_owned() };

    let calms: Vec<Moment> = seen.calms.iter().map(|(start, _)| *start).collect();
    let freshness = check::freshness::check(&records, &images, &calms);
    let (availability, figures) =
        check::availability::check(&records, &seen.struck, &sights, &shared.steady_keys());
    let mut verdicts = vec![
        freshness.verdict(),
        check::durability::check(&records, shared.key_count(), &seen.calms, &swept),
        statistics::check(&records, &windows, &seen.struck, &sights, &seen.counted),
        check::configuration::check(&shared.changes(), &seen.said, &properties, &first),
        availability,
        check::owner::check(&sights, &windows, &skewed),
    ];
    if !plan.is_short() {
        verdicts.push(check::memory::check(&samples));
    }
    let is_near = |record: &Record| matches!(record.did, Did::Read { cache: Some(CacheWord::Near), .. });
    if !records.iter().any(is_near) {
        seen.troubles
            .push("no gateway answered from a copy of its own, so nothing was seen of that".to_owned());
    }
    let troubles = check::Verdict {
        promise: "No process ends by itself, and the run comes to its end",
        looked_at: format!("{} processes", system.processes().count()),
        violations: seen.troubles,
    };
    verdicts.push(troubles);
    Ok(Report::new(plan, ended, &records, verdicts, &figures, &samples))
}

/// The lives of workers whose clocks were set while they were seen.
fn skewed(struck: &[Struck], sights: &[super::watch::Sight]) -> Vec<String> {
    let stepped: Vec<_> = struck.iter().filter(|struck| struck.strike.stepped_clocks).collect();
    let is_within = |at: Moment| {
        stepped.iter().any(|one| (one.strike.began..=one.ready.unwrap_or(Moment::MAX)).contains(&at))
    };
    let mut lives: Vec<String> =
        sights.iter().filter(|sight| is_within(sight.end)).map(|sight| sight.incarnation.clone()).collect();
    lives.sort_unstable();
    lives.dedup();
    lives
}

/// Makes all files old, starts a gateway anew, and waits until it has swept: it keeps what is younger than
/// an hour, because an upload that still goes on may name it.
async fn sweep(scene: &Scene) -> anyhow::Result<Swept> {
    let (system, folder) = (&scene.system, scene.system.images());
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 3600);
    for file in rows::files(&folder)? {
        std::fs::File::options().write(true).open(folder.join(file))?.set_modified(long_ago)?;
    }
    let named = rows::named_files(&system.tables).await?;
    let unnamed_before = rows::files(&folder)?.difference(&named).count();
    system.gateways[0].terminate().await?;
    system.gateways[0].start().await?;
    anyhow::ensure!(all_ready(system).await.is_some(), "the gateway does not get ready again");
    let is_swept = async {
        while rows::files(&folder)? != named {
            sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    // Files that are wrong after this time are found by the check.
    let _ = timeout(Duration::from_secs(10), is_swept).await;
    let files = rows::files(&folder)?;
    Ok(Swept {
        unnamed_before,
        unnamed_after: files.difference(&named).cloned().collect(),
        missing: named.difference(&files).cloned().collect(),
    })
}
