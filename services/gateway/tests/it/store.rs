//! Image store and database: whether they belong together, what the sweep takes away, and a store that fails.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use testkit::database::Account;
use testkit::{Database, eventually, samples};
use tokio::net::TcpListener;

use crate::helpers::{Gateway, PATIENCE, Scene, files_in};
use crate::http::{self, Answer};

const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A small image that is like no other.
fn image(number: usize) -> Vec<u8> {
    let mut bytes = samples::chelsea().bytes.to_vec();
    bytes.extend(number.to_be_bytes());
    bytes
}

fn name(number: usize) -> String {
    format!("/images/cat-{number}")
}

async fn store(gateway: &Gateway, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(gateway.put(&name(number), &image(number)).await.status, 201);
    }
}

/// Makes files as old as if they had been written so long ago.
fn age(files: impl IntoIterator<Item = PathBuf>, age: Duration) {
    for file in files {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
}

fn trash(scene: &Scene) -> Vec<PathBuf> {
    files_in(&scene.images().join("trash"))
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_in(folder).into_iter().chain(files_in(&folder.join("trash")));
    files.map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect()
}

/// For a while nothing may change; a sweep begins as soon as a gateway serves.
async fn nothing_changes(folder: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) {
    for _ in 0..15 {
        assert_eq!(&contents(folder), before, "the sweep took files away");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn part(ready: &Answer) -> Value {
    ready.json()["parts"]["store"].clone()
}

/// Looks at a gateway whose store and database do not belong together: nothing is changed, and it says why.
async fn is_refused(gateway: &Gateway, folder: &Path, reason: &str) {
    let before = contents(folder);
    let is_said = |ready: &Answer| {
        let message = part(ready)["message"].as_str().unwrap().to_owned();
        part(ready)["ok"] == false && message.contains(reason) && message.contains("bin/adopt")
    };
    // It looks again every few seconds.
    eventually("the reason is said", PATIENCE, async || is_said(&gateway.get("/readyz").await)).await;
    assert_eq!(gateway.get("/readyz").await.status, 503);
    assert_eq!(gateway.metric("pixcache_part_up{part=\"store\"}").await, 0.0);
    for page in ["/system", "/"] {
        let text = gateway.get(page).await.text();
        assert!(text.contains("gateway adopt") && text.contains("Image store"), "{page}: {text}");
    }
    let form = http::Form::new().key("new").file(samples::chelsea().bytes);
    for answer in [
        gateway.put("/images/new", samples::chelsea().bytes).await,
        gateway.upload(form).await,
        gateway.delete("/images/cat-0").await,
        gateway.post("/api/delete_all").await,
    ] {
        assert_eq!(answer.failure(), 503);
        assert!(answer.text().contains(reason), "{}", answer.text());
    }
    nothing_changes(folder, &before).await;
}

async fn execute(scene: &Scene, statements: &[&'static str]) {
    for statement in statements {
        sqlx::query(*statement).execute(&scene.pool).await.unwrap();
    }
}

/// A scene with so many images, all of them old, and no gateway.
async fn old_images(count: usize) -> Scene {
    let scene = Scene::new().await;
    let gateway = scene.start_gateway(&[]).await;
    store(&gateway, 0..count).await;
    gateway.stop().await.unwrap();
    age(files_in(&scene.images()), TWO_HOURS);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_empty_database_nothing_is_changed_or_swept() {
    let scene = old_images(12).await;
    let empty = Database::migrated().await;
    let gateway = scene.start_gateway(&["--database-url", &empty.url(Account::Gateway)]).await;
    is_refused(&gateway, &scene.images(), "the database none").await;
    gateway.stop().await.unwrap();
    let right = scene.start_gateway(&[]).await;
    for number in 0..12 {
        assert_eq!(right.get(&name(number)).await.body, image(number));
    }
    right.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_database_that_was_lost_and_made_anew_nothing_is_changed_or_swept() {
    let scene = old_images(12).await;
    let tables: Vec<String> = sqlx::query_scalar("SHOW TABLES").fetch_all(&scene.pool).await.unwrap();
    for table in tables {
        let drop = format!("DROP TABLE `{table}`");
        sqlx::query(sqlx::AssertSqlSafe(drop)).execute(&scene.pool).await.unwrap();
    }
    scene.database.migrate().await;
    let gateway = scene.start_gateway(&[]).await;
    is_refused(&gateway, &scene.images(), "the database none").await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_of_another_installation_nothing_is_changed_or_swept() {
    let (scene, other) = (old_images(12).await, old_images(1).await);
    let mistyped = other.database.url(Account::Gateway);
    let gateway = scene.start_gateway(&["--database-url", &mistyped]).await;
    is_refused(&gateway, &scene.images(), "two installations").await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_older_database_all_its_images_are_served_and_the_newer_files_stay() {
    let scene = old_images(12).await;
    let gateway = scene.start_gateway(&[]).await;
    execute(&scene, &["CREATE TABLE last_night AS SELECT * FROM images"]).await;
    // What a day brings: images replaced, deleted and new.
    for number in 0..4 {
        assert_eq!(gateway.put(&name(number), &image(100 + number)).await.status, 200);
        assert_eq!(gateway.delete(&name(4 + number)).await.status, 204);
    }
    store(&gateway, 20..25).await;
    eventually("what was replaced and deleted is in the trash", PATIENCE, async || trash(&scene).len() == 8)
        .await;
    age(files_in(&scene.images()), TWO_HOURS);
    scene.nothing_is_pending().await;

    // While the gateway runs, and it takes no part in it.
    execute(&scene, &["DELETE FROM images", "INSERT INTO images SELECT * FROM last_night"]).await;
    for number in [0, 4] {
        assert_eq!(gateway.get(&name(number)).await.body, image(number), "it is found when it is asked for");
    }
    gateway.stop().await.unwrap();
    let gateway = scene.start_gateway(&[]).await;
    // By the sweep, before anybody asks.
    eventually("what the rows name is out of the trash", PATIENCE, async || trash(&scene).is_empty()).await;
    eventually("the sweep has looked", PATIENCE, async || {
        gateway.get("/system").await.text().contains("The sweep stands still")
    })
    .await;
    // Nine newer files are more than a tenth: they stay, and the rows may still be restored from a newer backup.
    assert_eq!(scene.file_count(), 12 + 4 + 5);
    for number in 0..12 {
        assert_eq!(gateway.get(&name(number)).await.body, image(number));
    }
    let ready = gateway.get("/readyz").await;
    let message = part(&ready)["message"].to_string();
    assert!(
        message.contains("no row names 9 of 21 files") && message.contains("SWEEP_MAX_PERCENT"),
        "{message}"
    );
    assert_eq!(part(&ready)["ok"], true);
    assert_eq!(gateway.metric("pixcache_sweep_held_files").await, 9.0);
    gateway.stop().await.unwrap();

    // Told so, it takes them away: into the trash.
    let gateway = scene.start_gateway(&["--sweep-max-percent", "100"]).await;
    eventually("they are in the trash", PATIENCE, async || trash(&scene).len() == 9).await;
    assert_eq!(scene.file_count(), 12);
    eventually("nothing is held", PATIENCE, async || {
        gateway.metric("pixcache_sweep_held_files").await == 0.0
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_installations_on_one_folder_one_is_refused() {
    let (one, other) = (Scene::new().await, Scene::new().await);
    let folder = one.images();
    let flags = ["--image-dir", folder.to_str().unwrap()];
    // Both for the first time, at the same moment.
    let (first, second) = tokio::join!(one.start_gateway(&flags), other.start_gateway(&flags));
    let [served, refused] = eventually("one of them is refused", PATIENCE, async || {
        let said = [part(&first.get("/readyz").await), part(&second.get("/readyz").await)];
        // "Two installations", or "the database none", if that of the other was not given an id before it was found out.
        match said.map(|said| said["message"].as_str().unwrap().contains("the image store has the id")) {
            [false, true] => Some([&first, &second]),
            [true, false] => Some([&second, &first]),
            _ => None,
        }
    })
    .await;
    store(served, 0..12).await;
    age(files_in(&folder), TWO_HOURS);
    is_refused(refused, &folder, "the image store has the id").await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_start_at_once_for_the_first_time_agree_on_one_id() {
    let scene = Scene::new().await;
    let gateways = futures_util::future::join_all((0..4).map(|_| scene.start_gateway(&[]))).await;
    for (number, gateway) in gateways.iter().enumerate() {
        assert_eq!(part(&gateway.get("/readyz").await)["ok"], true);
        assert_eq!(gateway.put(&name(number), &image(number)).await.status, 201);
    }
    let id = std::fs::read_to_string(scene.images().join("pixcache-id")).unwrap();
    let rows: Vec<(String, bool)> =
        sqlx::query_as("SELECT id, confirmed FROM origin_identity").fetch_all(&scene.pool).await.unwrap();
    assert_eq!(rows, [(id.trim().to_owned(), true)]);
    for gateway in gateways {
        gateway.stop().await.unwrap();
    }
}

/// Makes of an installation one of the version before, which knew no ids.
async fn forget_ids(scene: &Scene) {
    std::fs::remove_file(scene.images().join("pixcache-id")).unwrap();
    execute(scene, &["DELETE FROM origin_identity"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_of_the_version_before_gets_an_id_if_its_rows_name_files_that_are_there() {
    let scene = old_images(12).await;
    forget_ids(&scene).await;
    let gateway = scene.start_gateway(&[]).await;
    assert_eq!(part(&gateway.get("/readyz").await)["ok"], true);
    assert_eq!(gateway.get(&name(3)).await.body, image(3));
    store(&gateway, 12..13).await;
    gateway.stop().await.unwrap();

    // A start that broke off between database and store goes on.
    std::fs::remove_file(scene.images().join("pixcache-id")).unwrap();
    execute(&scene, &["UPDATE origin_identity SET confirmed = 0"]).await;
    let gateway = scene.start_gateway(&[]).await;
    assert_eq!(part(&gateway.get("/readyz").await)["ok"], true);
    gateway.stop().await.unwrap();

    // Not with a file missing, nor with the rows gone, nor with the files gone.
    forget_ids(&scene).await;
    let files = files_in(&scene.images());
    let (aside, moved) = (scene.folder.path().join("aside"), &files[0]);
    std::fs::rename(moved, &aside).unwrap();
    let gateway = scene.start_gateway(&[]).await;
    is_refused(&gateway, &scene.images(), "of 13 images in the database 1 have no file").await;
    std::fs::rename(&aside, moved).unwrap();
    // As soon as it is right, it goes on by itself.
    eventually("it is right", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == true).await;
    gateway.stop().await.unwrap();

    forget_ids(&scene).await;
    execute(&scene, &["CREATE TABLE aside AS SELECT * FROM images", "DELETE FROM images"]).await;
    let gateway = scene.start_gateway(&[]).await;
    is_refused(&gateway, &scene.images(), "has files and the database no image").await;
    gateway.stop().await.unwrap();
    execute(&scene, &["INSERT INTO images SELECT * FROM aside"]).await;
    let elsewhere = scene.folder.path().join("elsewhere");
    let gateway = scene.start_gateway(&["--image-dir", elsewhere.to_str().unwrap()]).await;
    is_refused(&gateway, &elsewhere, "of 13 images in the database 13 have no file").await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_lost_or_is_not_mounted_takes_no_upload() {
    let scene = old_images(3).await;
    let gateway = scene.start_gateway(&[]).await;
    let aside = scene.folder.path().join("aside");
    std::fs::rename(scene.images(), &aside).unwrap();
    // Before anybody has looked: each upload looks for itself.
    std::fs::create_dir(scene.images()).unwrap();
    let answer = gateway.put("/images/new", &image(50)).await;
    assert_eq!(answer.failure(), 503);
    assert!(answer.text().contains("image store"), "{}", answer.text());
    assert_eq!(gateway.get("/api/images/new").await.status, 404, "nothing was changed");
    let answer = gateway.put(&name(1), &image(51)).await;
    assert_eq!(answer.failure(), 503);
    eventually("it is noticed", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == false).await;
    is_refused(&gateway, &scene.images(), "the image store none").await;
    gateway.stop().await.unwrap();
    std::fs::remove_dir_all(scene.images()).unwrap();
    // A start makes the folder anew, and knows that it is another one.
    let gateway = scene.start_gateway(&[]).await;
    is_refused(&gateway, &scene.images(), "the image store none").await;
    gateway.stop().await.unwrap();
    std::fs::remove_dir_all(scene.images()).unwrap();
    std::fs::rename(&aside, scene.images()).unwrap();
    let gateway = scene.start_gateway(&[]).await;
    for number in 0..3 {
        assert_eq!(gateway.get(&name(number)).await.body, image(number));
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_row_names_is_in_the_trash_for_a_week_by_the_clock_of_the_store() {
    let scene = old_images(12).await;
    let gateway = scene.start_gateway(&[]).await;
    assert_eq!(gateway.delete(&name(0)).await.status, 204);
    assert_eq!(gateway.put(&name(1), &image(101)).await.status, 200);
    eventually("both are in the trash", PATIENCE, async || trash(&scene).len() == 2).await;
    gateway.stop().await.unwrap();
    let both = trash(&scene);
    age([both[0].clone()], 6 * DAY);
    age([both[1].clone()], 8 * DAY);
    let gateway = scene.start_gateway(&[]).await;
    eventually("one of them is removed", PATIENCE, async || !both[1].exists()).await;
    assert!(both[0].exists());
    gateway.stop().await.unwrap();
    // With another setting, and none at all.
    let gateway = scene.start_gateway(&["--trash-days", "5"]).await;
    eventually("the other one too", PATIENCE, async || trash(&scene).is_empty()).await;
    gateway.stop().await.unwrap();
    let gateway = scene.start_gateway(&["--trash-days", "0"]).await;
    let before = scene.file_count();
    assert_eq!(gateway.delete(&name(2)).await.status, 204);
    eventually("it is removed at once", PATIENCE, async || scene.file_count() == before - 1).await;
    assert!(trash(&scene).is_empty());
    gateway.stop().await.unwrap();
}

/// Holds the row of a key, so that an upload waits with its file complete, and does something meanwhile.
async fn upload_while(
    scene: &Scene,
    gateway: &Gateway,
    number: usize,
    bytes: &[u8],
    meanwhile: impl FnOnce(&Path),
) -> Answer {
    let before = files_in(&scene.images());
    let mut connection = scene.database.connect(Account::Admin).await;
    sqlx::query("START TRANSACTION").execute(&mut connection).await.unwrap();
    sqlx::query("SELECT image_key FROM images WHERE image_key = ? FOR UPDATE")
        .bind(format!("cat-{number}"))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let path = name(number);
    let upload = gateway.put(&path, bytes);
    let arranged = async {
        // Until it is whole, it has a number behind its name.
        let is_new = |file: &PathBuf| !before.contains(file) && !file.to_string_lossy().contains('#');
        let new = || files_in(&scene.images()).into_iter().find(is_new);
        let complete =
            || new().filter(|file| file.metadata().is_ok_and(|file| file.len() == bytes.len() as u64));
        eventually("the file is complete", PATIENCE, async || complete().is_some()).await;
        meanwhile(&new().unwrap());
        sqlx::query("ROLLBACK").execute(&mut connection).await.unwrap();
    };
    let (answer, ()) = tokio::join!(upload, arranged);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_file_is_gone_before_its_answer_changes_nothing_or_finds_it_in_the_trash() {
    let (scene, _worker, gateway) = Scene::running().await;
    store(&gateway, 0..1).await;
    let answer =
        upload_while(&scene, &gateway, 0, &image(1), |file| std::fs::remove_file(file).unwrap()).await;
    assert_eq!(answer.failure(), 503);
    let text = answer.text();
    assert!(
        text.contains("the file of this image was gone") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(gateway.get(&name(0)).await.body, image(0), "the key has its old image");

    let folder = scene.images();
    let answer = upload_while(&scene, &gateway, 0, &image(2), |file| {
        let target = folder.join("trash").join(file.strip_prefix(&folder).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::rename(file, target).unwrap();
    })
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(gateway.get(&name(0)).await.body, image(2));
    gateway.stop().await.unwrap();
}

/// A gateway in a process of its own. It is killed when this is dropped.
struct Process {
    child: Child,
    port: u16,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings of a gateway of this scene.
fn settings(scene: &Scene, command: &mut Command) {
    command
        .env("NATS_URL", "")
        .env("NATS_PORT", scene.nats.port().to_string())
        .env("NATS_GATEWAY_PASSWORD", scene.nats.password("gateway"))
        .env("GATEWAY_DATABASE_URL", scene.database.url(Account::Gateway))
        .env("TEMPLATE_DIR", testkit::repository_root().join("templates"))
        .env("IMAGE_DIR", scene.images())
        .env("PORT", "0")
        .env("LOG_FORMAT", "json")
        .stdin(Stdio::null());
}

impl Process {
    async fn start(scene: &Scene, command: &mut Command) -> Self {
        settings(scene, command);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let port = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            loop {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "the gateway ended");
                let address = line.split("http://127.0.0.1:").nth(1);
                if let Some(port) = address.and_then(|rest| rest.split('"').next()?.parse().ok()) {
                    // The rest of the log must be read too, or the gateway would wait for that.
                    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                    return port;
                }
            }
        });
        let process = Self { child, port: port.await.unwrap() };
        eventually("the gateway serves", PATIENCE, async || {
            process.get("/api/openapi.json").await.status == 200
        })
        .await;
        process
    }

    async fn get(&self, path: &str) -> Answer {
        http::send(self.port, "GET", path, &[], b"").await
    }

    async fn put(&self, path: &str, body: &[u8]) -> Answer {
        http::send(self.port, "PUT", path, &[], body).await
    }
}

fn gateway_binary() -> &'static str {
    env!("CARGO_BIN_EXE_gateway")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_hangs_is_503_in_time_everywhere() {
    let scene = old_images(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let hanging = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let mut command = Command::new(gateway_binary());
    command.env("BLOB_URL", "s3://bucket/prefix").env("AWS_ENDPOINT", endpoint).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x").env("AWS_REGION", "x");
    command.env("STORE_TIMEOUT_S", "2");
    let gateway = Process::start(&scene, &mut command).await;
    for answer in [gateway.put("/images/new", &image(1)), gateway.put(&name(0), &image(1))] {
        let began = Instant::now();
        let answer = answer.await;
        assert_eq!(answer.failure(), 503);
        assert!(answer.text().contains("the image store"), "{}", answer.text());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
    let began = Instant::now();
    let answer = gateway.get(&name(0)).await;
    assert_eq!(answer.failure(), 503);
    assert!(answer.text().contains("the image store can't be reached now"), "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let began = Instant::now();
    let ready = gateway.get("/readyz").await;
    assert_eq!((ready.status, &part(&ready)["ok"]), (503, &Value::Bool(false)));
    assert!(part(&ready)["message"].to_string().contains("no answer within 2 s"), "{}", ready.text());
    assert!(gateway.get("/").await.text().contains("Image store"));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    hanging.abort();
}

/// As root, permissions bind only without the capability to ignore them.
fn without_privileges() -> Command {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if !is_root {
        return Command::new(gateway_binary());
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search,-fowner"]).arg(gateway_binary());
    command
}

fn set_mode(folder: &Path, mode: u32) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir())
    {
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_read_only_is_shown_and_its_images_are_served() {
    let scene = old_images(2).await;
    let gateway = Process::start(&scene, &mut without_privileges()).await;
    assert_eq!(gateway.put("/images/first", &image(5)).await.status, 201);
    set_mode(&scene.images(), 0o555);
    let answer = gateway.put("/images/second", &image(6)).await;
    assert_eq!(answer.failure(), 503);
    assert!(answer.text().contains("the image store"), "{}", answer.text());
    eventually("it is noticed", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == false).await;
    let ready = gateway.get("/readyz").await;
    assert!(part(&ready)["message"].to_string().contains("can't be written to"), "{}", ready.text());
    assert_eq!(ready.status, 503);
    let page = gateway.get("/system").await.text();
    assert!(page.contains("Image store") && page.contains("be written to"), "{page}");
    assert!(gateway.get("/metrics").await.text().contains("pixcache_part_up{part=\"store\"} 0"));
    assert_eq!(gateway.get(&name(1)).await.body, image(1));
    set_mode(&scene.images(), 0o755);
    eventually("it is noticed too", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == true)
        .await;
    assert_eq!(gateway.put("/images/second", &image(6)).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_room_is_shown_and_takes_no_upload() {
    let scene = old_images(1).await;
    // No file may grow beyond 8 blocks of 512 or 1024 bytes.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\"", gateway_binary()]);
    let gateway = Process::start(&scene, &mut command).await;
    let ready = gateway.get("/readyz").await;
    assert_eq!(part(&ready)["ok"], false);
    assert!(part(&ready)["message"].to_string().contains("can't be written to"), "{}", ready.text());
    let answer = gateway.put("/images/new", &image(1)).await;
    assert_eq!(answer.failure(), 503);
    assert!(answer.text().contains("the image store"), "{}", answer.text());
    assert_eq!(gateway.get(&name(0)).await.body, image(0));
    assert_eq!(scene.file_count(), 1, "nothing is left of it");
}

async fn adopt(scene: &Scene, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(gateway_binary());
    settings(scene, &mut command);
    command.arg("adopt").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn adopt_says_what_it_finds_and_joins_only_if_that_is_wanted() {
    let (scene, other) = (old_images(5).await, old_images(2).await);
    let folder = scene.images();
    // Files of this one, with rows of the other one.
    let flags = ["--image-dir", folder.to_str().unwrap()];
    let gateway = other.start_gateway(&flags).await;
    is_refused(&gateway, &folder, "two installations").await;
    let image_dir = folder.to_str().unwrap();
    let (done, text) = adopt(&other, &["--image-dir", image_dir]).await;
    assert!(!done && text.contains("nothing was changed"), "{text}");
    for (what, count) in [
        ("files", 5),
        ("rows", 2),
        ("files that no row names", 5),
        ("rows whose file is missing", 2),
        ("files in the trash", 0),
    ] {
        assert!(text.lines().any(|line| line == format!("{what:28}{count}")), "{what} in\n{text}");
    }
    let id = std::fs::read_to_string(folder.join("pixcache-id")).unwrap();
    assert!(text.contains(id.trim()), "{text}");
    is_refused(&gateway, &folder, "two installations").await;

    let (done, text) = adopt(&other, &["--image-dir", image_dir, "--yes"]).await;
    assert!(done, "{text}");
    eventually("it goes on", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == true).await;
    assert_eq!(gateway.put("/images/new", &image(1)).await.status, 201);
    let (done, text) = adopt(&other, &["--image-dir", image_dir, "--yes"]).await;
    assert!(done && text.contains("belong together already"), "{text}");
    // Who had the store before is locked out.
    let before = scene.start_gateway(&[]).await;
    is_refused(&before, &folder, "two installations").await;
    before.stop().await.unwrap();
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_file_is_missing_or_short_says_so_and_can_be_stored_again() {
    let scene = Scene::new().await;
    let gateway = scene.start_gateway(&["--near-cache-mb", "0"]).await;
    store(&gateway, 0..2).await;
    let files = files_in(&scene.images());
    let first = files.iter().find(|file| std::fs::read(file).unwrap() == image(0)).unwrap();
    let second = files.iter().find(|file| std::fs::read(file).unwrap() == image(1)).unwrap();
    std::fs::remove_file(first).unwrap();
    std::fs::File::options().write(true).open(second).unwrap().set_len(1000).unwrap();
    for number in 0..2 {
        for path in [name(number), format!("{}?w=160", name(number))] {
            let answer = gateway.get(&path).await;
            assert_eq!(answer.status, 500, "{path}");
            assert!(
                answer.text().contains("missing or damaged in the image store"),
                "{path}: {}",
                answer.text()
            );
        }
        assert_eq!(gateway.put(&name(number), &image(number)).await.status, 200);
        assert!(gateway.get(&name(number)).await.body == image(number));
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_id_is_damaged_is_refused_and_can_be_adopted() {
    let scene = old_images(5).await;
    let gateway = scene.start_gateway(&[]).await;
    let folder = scene.images();
    for junk in ["", "junk"] {
        std::fs::write(folder.join("pixcache-id"), junk).unwrap();
        eventually("it is seen", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == false).await;
        is_refused(&gateway, &folder, "no id of 32 hexadecimal digits").await;
        let (done, text) = adopt(&scene, &["--image-dir", folder.to_str().unwrap(), "--yes"]).await;
        assert!(done && text.contains("unreadable"), "{text}");
        eventually("it goes on", PATIENCE, async || part(&gateway.get("/readyz").await)["ok"] == true).await;
        assert_eq!(gateway.get(&name(0)).await.status, 200);
    }
    gateway.stop().await.unwrap();
}
