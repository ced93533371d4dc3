//! The pages, as a browser without scripts uses them.

use std::process::{Child, Command, Stdio};

use charts::Chart;
use testkit::database::{Account, MariaDb};
use testkit::{eventually, samples};

use crate::helpers::{Gateway, PATIENCE, Scene, WITHOUT_COPIES};
use crate::http::{Answer, Form};

const PAGES: [&str; 6] = ["/", "/upload_image", "/image", "/keys_list", "/cache_properties", "/cache_stats"];
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const MARKUP: &str = "<script>alert(1)</script>\"'><img src=x>";

impl Gateway {
    /// Sends a form without files.
    async fn submit(&self, path: &str, fields: &str) -> Answer {
        self.send("POST", path, &[FORM], fields.as_bytes()).await
    }

    /// Sends the upload form.
    async fn submit_upload(&self, form: Form) -> Answer {
        let content_type = Form::content_type();
        self.send("POST", "/upload_image", &[("Content-Type", &content_type)], &form.bytes()).await
    }

    /// Goes where a form's answer leads.
    async fn follow(&self, answer: &Answer) -> Answer {
        assert_eq!(answer.status, 303, "{}", answer.text());
        self.get(answer.header("location")).await
    }
}

/// What a page says, without its markup: what stands between `<main` and its end, white space folded.
fn words(answer: &Answer) -> String {
    assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.text());
    let text = answer.text();
    let main = text.split_once("<main").map_or(text.as_str(), |(_, main)| main);
    // An address with a port is a box of its own within a word.
    let mut boxes = main.split(r#"<span class="port">"#);
    let first = boxes.next().unwrap_or_default().to_owned();
    let main = boxes.fold(first, |before, after| before + &after.replacen("</span></span>", "", 1));
    let main = main.replace(r#"<span class="address">"#, "");
    let mut words = String::new();
    for part in main.split('<') {
        words.push_str(part.split_once('>').map_or("", |(_, text)| text));
        words.push(' ');
    }
    let words =
        words.replace("&nbsp;", " ").replace("&#x2f;", "/").replace("&quot;", "\"").replace("&#x27;", "'");
    words
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The value of the attribute behind this piece of a page's text.
fn behind<'a>(text: &'a str, piece: &str) -> &'a str {
    let (_, rest) = text.split_once(piece).unwrap_or_else(|| panic!("no {piece} in {text}"));
    rest.split('"').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_there_before_and_after_the_first_image() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for stored in [false, true] {
        if stored {
            gateway.put("/images/chelsea.png", samples::chelsea().bytes).await;
        }
        for path in PAGES {
            let page = gateway.get(path).await;
            assert_eq!(page.status, 200, "{path}");
            assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{path}");
            assert!(page.header("content-security-policy").contains("script-src 'self'"), "{path}");
            assert_eq!(page.header("cache-control"), "no-cache", "{path}");
            assert!(page.text().contains("<h1"), "{path}");
            let head = gateway.send("HEAD", path, &[], b"").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        }
    }
    let home = gateway.get("/").await;
    assert!(
        home.text().contains("/images/chelsea.png?v=")
            || home.text().contains("&#x2f;images&#x2f;chelsea.png?v=")
    );
    assert!(words(&home).contains("1 image is stored"), "{}", words(&home));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_leads_to_its_image_and_says_when_it_replaced_one() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let key = "holiday/größe & <b>.png";
    // The file before the key, as the page has them, and the other way round.
    let first = gateway.submit_upload(Form::new().file(samples::chelsea().bytes).key(key)).await;
    let page = gateway.follow(&first).await;
    assert_eq!(page.status, 200);
    assert!(
        words(&page).contains("Stored.") && words(&page).contains("451 × 300 pixels"),
        "{}",
        words(&page)
    );
    assert!(words(&page).contains(key) && !page.text().contains("<b>"));

    let second = gateway.submit_upload(Form::new().key(key).file(samples::coffee().bytes)).await;
    let page = gateway.follow(&second).await;
    assert!(
        words(&page).contains("Replaced.") && words(&page).contains("600 × 400 pixels"),
        "{}",
        words(&page)
    );
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_says_why_and_keeps_the_key() {
    let (scene, _worker, gateway) = Scene::running().await;
    let cut = &samples::chelsea().bytes[..20_000];
    let long = "x".repeat(256);
    let image = samples::chelsea().bytes;
    // Up to its end it may become an image: a header, and a chunk of 21 MB.
    let mut large = [&image[..33], &(21u32 << 20).to_be_bytes(), b"teXt"].concat();
    large.resize(large.len() + (21 << 20), b'x');
    for (status, form, kept) in [
        (415, Form::new().file(b"I am text").key("my key"), "my key"),
        (415, Form::new().key("my key").file(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "my key"),
        (422, Form::new().file(b"").key("my key"), "my key"),
        (422, Form::new().file(cut).key(MARKUP), MARKUP),
        (413, Form::new().key("my key").file(&large), "my key"),
        (413, Form::new().file(&large).key("my key"), "my key"),
        (400, Form::new().file(image).key(&long), &long),
        (400, Form::new().file(image).key(" outer"), " outer"),
        (400, Form::new().file(image).key(""), ""),
        (400, Form::new().file(image).key(".."), ".."),
        (400, Form::new().file(image), ""),
        (400, Form::new().key("my key"), "my key"),
        (400, Form::new().file(image).key("a").key("b"), "a"),
    ] {
        let page = gateway.submit_upload(form).await;
        assert_eq!(page.status, status, "{}", words(&page));
        assert!(words(&page).contains("Nothing was stored."), "{}", words(&page));
        let field = page.text();
        let field = behind(&field, "name=\"key\" value=\"").replace("&lt;", "<").replace("&gt;", ">");
        assert_eq!(field.replace("&quot;", "\"").replace("&#x27;", "'").replace("&#x2f;", "/"), kept);
    }
    let wrong_type = gateway.submit("/upload_image", "key=cat").await;
    assert_eq!(wrong_type.status, 415);
    assert_eq!(gateway.get("/api/images").await.json()["images"].as_array().unwrap().len(), 0);
    assert_eq!(scene.file_count(), 0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_s_page_reads_it_through_the_cache() {
    let (scene, _worker, gateway) = Scene::running_with(&WITHOUT_COPIES).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    for (read, resident) in [("Miss", "with 0 hits"), ("Hit", "with 1 hit so far")] {
        let page = gateway.get("/image?key=cat").await;
        assert_eq!(page.status, 200);
        let words = words(&page);
        assert!(words.contains(&format!("{read} ")) && words.contains(" ms "), "{words}");
        assert!(words.contains(resident), "{words}");
        assert!(words.contains("curl -o cat.png 'http://127.0.0.1:"), "{words}");
        assert!(words.contains("cache.get.cat '' --translate"), "{words}");
    }
    // What a page shows as the image's address is that image.
    let page = gateway.get("/image?key=cat").await.text();
    let source = behind(&page, "<img data-picture src=\"").replace("&#x2f;", "/");
    assert!(gateway.get(&source).await.body == samples::chelsea().bytes);
    gateway.stop().await.unwrap();

    let gateway = scene.start_gateway(&[]).await;
    eventually("the gateway's own copy is read", PATIENCE, async || {
        words(&gateway.get("/image?key=cat").await).contains("This read Near hit ")
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_dropped_from_the_cache_by_its_page() {
    let (scene, worker, gateway) = Scene::running().await;
    gateway.put("/images/a%2Fcat", samples::chelsea().bytes).await;
    let absent = gateway.submit("/image/invalidate", "key=a%2Fcat").await;
    assert_eq!(absent.header("location"), "/image?key=a%2Fcat&invalidated=absent");
    let page = gateway.follow(&absent).await;
    assert!(words(&page).contains("It was not in the cache."), "{}", words(&page));

    // That page has read it.
    gateway.fills_end().await;
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 1);
    let page = gateway.follow(&gateway.submit("/image/invalidate", "key=a%2Fcat").await).await;
    let said = words(&page);
    assert!(said.contains("Dropped from the cache.") && said.contains("This read Miss "), "{said}");
    assert_eq!(gateway.get("/images/a%2Fcat").await.body, samples::chelsea().bytes);

    assert_eq!(gateway.submit("/image/invalidate", "key=..").await.status, 400);
    assert_eq!(gateway.get("/image/invalidate").await.header("location"), "/image");
    drop(worker);
    eventually("the worker is gone", PATIENCE, async || {
        let refused = gateway.submit("/image/invalidate", "key=a%2Fcat").await;
        refused.status == 503 && words(&refused).contains("The cache")
    })
    .await;
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wide_photograph_is_shown_as_a_narrower_one() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for image in [samples::retina(), samples::rocket()] {
        gateway.put(&format!("/images/{}", image.name), image.bytes).await;
    }
    let wide = gateway.get("/image?key=retina.jpg").await;
    assert!(words(&wide).contains("Shown 1280 pixels wide."), "{}", words(&wide));
    assert!(behind(&wide.text(), "<img data-picture src=\"").ends_with("&amp;w=1280"));
    let narrow = gateway.get("/image?key=rocket.jpg").await;
    assert!(!words(&narrow).contains("pixels wide"));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_or_not_stored_is_said_in_the_form() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for (query, status, shown) in [
        ("key=cat", 404, "cat"),
        ("key=..%2F..%2Fetc%2Fpasswd", 404, "../../etc/passwd"),
        ("key=", 400, ""),
        ("key=%FF", 400, "\u{FFFD}"),
        ("key=a%00b", 400, "a\0b"),
        ("key=..", 400, ".."),
        ("key=+cat", 400, " cat"),
    ] {
        for path in ["/image", "/image/delete"] {
            let page = gateway.get(&format!("{path}?{query}")).await;
            assert_eq!(page.status, status, "{path} {query}");
            assert_eq!(
                behind(&page.text(), "name=\"key\" value=\"").replace("&#x2f;", "/"),
                shown,
                "{query}"
            );
        }
        let page = gateway.submit("/image/delete", query).await;
        assert_eq!(page.status, status, "{query}");
    }
    let long = "x".repeat(256);
    assert_eq!(gateway.get(&format!("/image?key={long}")).await.status, 400);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_kind_are_shown_as_they_are() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let scripts = "größe-猫-ключ-مفتاح/";
    let mut long = scripts.repeat(255 / scripts.len());
    long.push_str(&"-".repeat(255 - long.len()));
    for key in [MARKUP, &long, "../../etc/passwd", "a&b=c#d?e%2F", "{{ 7 * 7 }}"] {
        let stored = gateway.submit_upload(Form::new().key(key).file(samples::rocket().bytes)).await;
        let page = gateway.follow(&stored).await;
        assert_eq!(page.status, 200, "{key}");
        assert!(words(&page).contains(key), "{key}: {}", words(&page));
        for path in ["/", "/keys_list"] {
            let page = gateway.get(path).await;
            assert!(words(&page).contains(key), "{path} {key}");
            assert!(!page.text().contains("<script>alert") && !page.text().contains("<img src=x"), "{path}");
        }
    }
    // Each link of the list leads to its image.
    let list = gateway.get("/keys_list").await.text();
    let links: Vec<_> =
        list.split("<a class=\"key\" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links.len(), 5);
    for link in links {
        assert_eq!(gateway.get(&link.replace("&#x2f;", "/")).await.status, 200, "{link}");
    }
    gateway.stop().await.unwrap();
}

/// The keys that a page of the list shows, in its order.
fn listed(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", words(answer));
    let text = answer.text();
    let boxes = text.split("name=\"key\" value=\"").skip(1);
    boxes.map(|piece| plain(piece.split('"').next().unwrap())).collect()
}

/// The text of an attribute.
fn plain(text: &str) -> String {
    text.replace("&#x2f;", "/").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Where the link with this `rel` leads.
fn link(answer: &Answer, rel: &str) -> Option<String> {
    let text = answer.text();
    let before = text.split_once(&format!(" rel=\"{rel}\""))?.0;
    Some(plain(before.rsplit("href=\"").next()?.trim_end_matches('"')))
}

/// Stores 120 images as rows alone: every third has the same size, every second the same time.
async fn many(scene: &Scene) -> Vec<(String, u64, u64)> {
    let mut rows = Vec::new();
    for n in 0..120_u64 {
        // A prime beyond them: neighbours lie apart.
        let key = format!("{}/{:03}", if n % 4 == 0 { "b" } else { "a" }, n * 61 % 127);
        let (size, stored) = (100 + n % 3, n / 2);
        sqlx::query(
            "INSERT INTO images VALUES (?, ?, 'image/png', ?, 1, 1, REPEAT('x', 32), '2026-01-01', \
             '2026-01-01' + INTERVAL ? SECOND)",
        )
        .bind(key.as_bytes())
        .bind(format!("none/{n}"))
        .bind(size)
        .bind(stored)
        .execute(&scene.pool)
        .await
        .unwrap();
        rows.push((key, size, stored));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_six_orders_and_goes_forwards_and_backwards() {
    let (scene, _worker, gateway) = Scene::running().await;
    let mut rows = many(&scene).await;
    for (sort, descending) in [
        ("key", false),
        ("key-down", true),
        ("oldest", false),
        ("newest", true),
        ("smallest", false),
        ("largest", true),
    ] {
        rows.sort_by_key(|(key, size, stored)| match sort {
            "key" | "key-down" => (0, key.clone()),
            "smallest" | "largest" => (*size, key.clone()),
            _ => (*stored, key.clone()),
        });
        if descending {
            rows.reverse();
        }
        for (path, prefix) in [("/keys_list", ""), ("/", ""), ("/keys_list", "a/"), ("/", "a/")] {
            let expected: Vec<_> =
                rows.iter().map(|row| row.0.clone()).filter(|key| key.starts_with(prefix)).collect();
            let mut address = format!("{path}?sort={sort}&prefix={prefix}");
            let (mut seen, mut pages) = (Vec::new(), Vec::new());
            let last = loop {
                let page = gateway.get(&address).await;
                seen.extend(listed(&page));
                pages.push(listed(&page));
                match link(&page, "next") {
                    Some(next) => address = next,
                    None => break page,
                }
            };
            assert_eq!(seen, expected, "{path} {sort} {prefix}");
            assert!(pages.len() > 1);
            // The way back shows the same pages.
            let mut page = last;
            for before in pages.iter().rev().skip(1) {
                page = gateway.get(&link(&page, "prev").unwrap()).await;
                assert_eq!(&listed(&page), before, "{path} {sort} {prefix}");
            }
            assert_eq!(listed(&gateway.get(&format!("{path}?sort={sort}&prefix={prefix}")).await), pages[0]);
        }
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_back_to_the_beginning_is_the_first_page() {
    let (scene, _worker, gateway) = Scene::running().await;
    let mut keys: Vec<_> = many(&scene).await.into_iter().map(|row| row.0).collect();
    keys.sort();
    // Fewer than a page are before this one.
    let page = gateway.get(&format!("/keys_list?before={}", keys[3].replace('/', "%2F"))).await;
    assert_eq!(listed(&page), keys[..50]);
    assert!(link(&page, "prev").is_none() && link(&page, "next").is_some());
    let beyond = gateway.get("/keys_list?after=z").await;
    assert!(words(&beyond).contains("There are no more images here"), "{}", words(&beyond));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_and_says_what_is_cached() {
    let (scene, _worker, gateway) = Scene::running().await;
    let rows = many(&scene).await;
    let some = rows.iter().filter(|row| row.0.starts_with("a/1")).count();
    for key in ["c", "d"] {
        gateway.put(&format!("/images/{key}"), samples::rocket().bytes).await;
    }
    gateway.get("/images/c").await;
    for path in ["/keys_list", "/"] {
        assert_eq!(listed(&gateway.get(&format!("{path}?prefix=a%2F1&sort=key")).await).len(), some);
        let one = gateway.get(&format!("{path}?prefix=c")).await;
        assert_eq!(listed(&one), ["c"]);
        assert!(
            words(&one).contains("1 image of 122 images with a key that begins with c"),
            "{}",
            words(&one)
        );
        assert!(words(&one).contains("640 × 427"), "{}", words(&one));
        assert!(words(&one).contains("cached · 0 hits"), "{}", words(&one));
        let other = gateway.get(&format!("{path}?prefix=d")).await;
        assert!(words(&other).contains("not cached"), "{}", words(&other));
        let none = gateway.get(&format!("{path}?prefix=B")).await;
        assert!(words(&none).contains("No key begins with B"), "{}", words(&none));
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_can_be_sorted_are_shown_by_key() {
    let (scene, _worker, gateway) = Scene::running().await;
    sqlx::query(
        "INSERT INTO images SELECT CONCAT('x', LPAD(seq, 6, '0')), CONCAT('none/', seq), 'image/png', seq, 1, 1, \
         REPEAT('x', 32), '2026-01-01', '2026-01-01' FROM seq_1_to_10001",
    )
    .execute(&scene.pool)
    .await
    .unwrap();
    let page = gateway.get("/keys_list?prefix=x&sort=largest").await;
    assert_eq!(listed(&page)[..2], ["x000001", "x000002"]);
    assert!(words(&page).contains("More than 10,000 keys begin like that"), "{}", words(&page));
    let fewer = gateway.get("/keys_list?prefix=x00&sort=largest").await;
    assert_eq!(listed(&fewer)[0], "x009999");
    assert!(!words(&fewer).contains("begin like that"));
    // Of all of them, any number is sorted.
    assert_eq!(listed(&gateway.get("/keys_list?sort=largest").await)[0], "x010001");
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_asked_for_wrongly_says_what_is_allowed() {
    let (_scene, _worker, gateway) = Scene::running().await;
    for (query, said) in [
        ("sort=colour", "key, key-down, newest, oldest, largest or smallest, got"),
        ("sort=%3Cb%3E", "Sort must be"),
        ("sort=%FF", "Sort must be UTF-8"),
        ("prefix=%FF", "Prefix must be UTF-8"),
        ("sort=largest&after=cat", "must be <bytes>:<key>, got"),
        ("sort=largest&before=x:cat", "must be <bytes>:<key>, got"),
        ("sort=newest&after=99999999999999999999:cat", "must be <microseconds since 1970>:<key>, got"),
        ("after=a&before=b", "After or before must be left out, got both"),
    ] {
        for path in ["/", "/keys_list"] {
            let page = gateway.get(&format!("{path}?{query}")).await;
            assert_eq!(page.status, 400, "{path} {query}");
            assert!(words(&page).contains(said), "{}", words(&page));
            assert!(!page.text().contains("<b>"));
        }
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_images_are_deleted_once_that_is_confirmed() {
    let (scene, _worker, gateway) = Scene::running().await;
    let odd = "a&b=c#d?e%2F <猫>";
    let escaped = "a%26b%3Dc%23d%3Fe%252F+%3C%E7%8C%AB%3E";
    for key in ["cat", "dog", "bird"] {
        gateway.put(&format!("/images/{key}"), samples::chelsea().bytes).await;
    }
    gateway.submit_upload(Form::new().key(odd).file(samples::rocket().bytes)).await;
    gateway.get("/images/cat").await;
    let chosen = format!("key=cat&key={escaped}&key=cat&key=gone");
    let question = gateway.submit("/keys_list/delete", &format!("{chosen}&back=%2F%3Fsort%3Dkey")).await;
    assert_eq!(question.status, 200);
    let said = words(&question);
    assert!(said.contains("Delete 2 images?") && said.contains(odd) && said.contains("gone"), "{said}");
    assert_eq!(listed(&question), ["cat", odd]);
    assert_eq!(gateway.get("/api/images").await.json()["images"].as_array().unwrap().len(), 4);

    let done = gateway
        .submit("/keys_list/delete", &format!("key=cat&key={escaped}&confirmed=1&back=%2F%3Fsort%3Dkey"))
        .await;
    assert_eq!(done.header("location"), "/?sort=key&deleted_count=2");
    let page = gateway.follow(&done).await;
    assert!(words(&page).contains("2 images are deleted."), "{}", words(&page));
    assert_eq!(listed(&page), ["bird", "dog"]);
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 0);

    // One that is gone meanwhile: what became of each is told.
    let part = gateway.submit("/keys_list/delete", "key=bird&key=cat&confirmed=1").await;
    assert_eq!(part.status, 404);
    let said = words(&part);
    assert!(said.contains("1 of 2 images deleted") && said.contains("deleted bird"), "{said}");
    assert!(said.contains("failed cat No image is stored under"), "{said}");
    assert_eq!(listed(&gateway.get("/keys_list").await), ["dog"]);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_bounded_and_leads_nowhere_else() {
    let (_scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    let many = |count: usize| (0..count).map(|n| format!("key={n:0>255}&")).collect::<String>();
    for (fields, status, said) in [
        (String::new(), 400, "The images to delete must be selected, got none"),
        ("key=".into(), 400, "The key must be 1 to 255 bytes of UTF-8, got nothing"),
        ("key=%FF".into(), 400, "got bytes that are not UTF-8"),
        (many(101), 400, "must be 1 to 100, got 101"),
        ("x".repeat(200_000), 413, "The form must be at most"),
    ] {
        let page = gateway.submit("/keys_list/delete", &fields).await;
        assert_eq!(page.status, status, "{}", words(&page));
        assert!(words(&page).contains(said), "{}", words(&page));
    }
    // As many as are allowed, of the longest kind, each byte of them escaped.
    let longest = (0..100).map(|n| format!("key={n:03}{}&", "%2F".repeat(252))).collect::<String>();
    assert_eq!(gateway.submit("/keys_list/delete", &longest).await.status, 200);
    for elsewhere in [
        "https%3A%2F%2Fevil.example",
        "%2F%2Fevil.example",
        "%2Fimages%2Fcat",
        "%2F%5Cevil",
        "%2F%3Fa%0D%0Ab",
    ] {
        let page = gateway.submit("/keys_list/delete", &format!("key=cat&back={elsewhere}")).await;
        assert_eq!(plain(behind(&page.text(), "name=\"back\" value=\"")), "/keys_list", "{elsewhere}");
    }
    assert_eq!(gateway.get("/keys_list/delete").await.header("location"), "/keys_list");
    assert_eq!(gateway.get("/images/cat").await.status, 200);
    let cross = [FORM, ("Sec-Fetch-Site", "cross-site")];
    let refused = gateway.send("POST", "/keys_list/delete", &cross, b"key=cat&confirmed=1").await;
    assert_eq!(refused.status, 403);
    assert_eq!(gateway.get("/images/cat").await.status, 200);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_asks_first_and_then_does_it() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    let question = gateway.get("/image/delete?key=cat").await;
    assert!(words(&question).contains("Delete this image?"));
    assert_eq!(gateway.get("/images/cat").await.status, 200);

    let home = gateway.follow(&gateway.submit("/image/delete", "key=cat").await).await;
    assert!(words(&home).contains("“cat” is deleted."), "{}", words(&home));
    assert_eq!(gateway.get("/images/cat").await.status, 404);
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 0);
    assert_eq!(gateway.submit("/image/delete", "key=cat").await.status, 404);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_take_effect_or_are_refused_with_what_was_typed() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let applied = gateway.submit("/cache_properties", "capacity_mb=32&policy=clock_pro").await;
    let page = gateway.follow(&applied).await;
    assert!(
        words(&page).contains("is in force.") && words(&page).contains("32 MB, policy clock_pro"),
        "{}",
        words(&page)
    );
    let live = || async { gateway.get("/api/cache").await.json() };
    assert_eq!(
        (live().await["capacity_mb"].as_u64(), live().await["policy"].as_str()),
        (Some(32), Some("clock_pro"))
    );

    let before = live().await;
    for (fields, typed, says) in [
        ("capacity_mb=0&policy=lru", "0", "Capacity must be a whole number of megabytes from 1 to"),
        ("capacity_mb=-1&policy=lru", "-1", "memory), got -1"),
        ("capacity_mb=1e12&policy=lru", "1e12", "Capacity must be"),
        ("capacity_mb=1.5&policy=lru", "1.5", "memory), got 1.5"),
        ("capacity_mb=abc&policy=lru", "abc", "memory), got \"abc\""),
        ("capacity_mb=&policy=lru", "", "Capacity must be"),
        ("policy=lru", "", "Capacity must be"),
        ("capacity_mb=32&policy=mru", "32", "Policy must be none, random, lru or clock_pro, got \"mru\""),
        ("capacity_mb=32", "32", "got \"\""),
    ] {
        let page = gateway.submit("/cache_properties", fields).await;
        assert_eq!(page.status, 400, "{fields}");
        assert!(
            words(&page).contains("Nothing was changed.") && words(&page).contains(says),
            "{}",
            words(&page)
        );
        assert_eq!(behind(&page.text(), "name=\"capacity_mb\" value=\""), typed, "{fields}");
    }
    assert_eq!(live().await, before);
    let wrong =
        gateway.send("POST", "/cache_properties", &[("Content-Type", "application/json")], b"{}").await;
    assert_eq!(wrong.status, 415);
    let huge = format!("capacity_mb={}&policy=lru", "1".repeat(70_000));
    assert_eq!(gateway.submit("/cache_properties", &huge).await.status, 413);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_the_cache_keeps_the_images() {
    let (scene, _worker, gateway) = Scene::running().await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    gateway.fills_end().await;
    let page = gateway.follow(&gateway.submit("/cache_properties/clear", "").await).await;
    assert!(words(&page).contains("The cache is cleared. 1 item"), "{}", words(&page));
    assert_eq!(scene.cache_stats().await.unwrap().key_count, 0);
    assert_eq!(gateway.get("/images/cat").await.cache(), "fwd=miss; detail=filling");
    // A reload of that address by hand.
    for path in ["/cache_properties/clear", "/cache_properties/delete_all"] {
        assert_eq!(gateway.get(path).await.header("location"), "/cache_properties");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_deleted_only_when_the_words_are_typed() {
    let (scene, _worker, gateway) = Scene::running().await;
    for image in samples::all() {
        gateway.put(&format!("/images/{}", image.name), image.bytes).await;
    }
    for typed in ["", "confirmation=", "confirmation=yes", "confirmation=Delete+everything"] {
        let page = gateway.submit("/cache_properties/delete_all", typed).await;
        assert_eq!(page.status, 400, "{typed}");
        assert!(words(&page).contains("No image was deleted."), "{}", words(&page));
    }
    assert_eq!(scene.file_count(), 7);
    let page = gateway.submit("/cache_properties/delete_all", "confirmation=delete+everything").await;
    let page = gateway.follow(&page).await;
    assert!(words(&page).contains("Everything is deleted. 7 images"), "{}", words(&page));
    assert_eq!(scene.file_count(), 0);
    assert!(words(&gateway.get("/").await).contains("No image is stored yet"));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_and_a_recorder_every_page_still_answers_and_says_so() {
    let scene = Scene::new().await;
    let gateway = scene.start_gateway(&[]).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    for path in PAGES.into_iter().chain(["/image?key=cat", "/image/delete?key=cat"]) {
        let page = gateway.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let words = words(&page);
        assert!(
            words.contains("Cache worker is down") && words.contains("Recorder is down"),
            "{path}: {words}"
        );
    }
    assert!(words(&gateway.get("/image?key=cat").await).contains("Bypass"));
    assert!(words(&gateway.get("/cache_stats").await).contains("There are no statistics to show now."));
    let settings = gateway.get("/cache_properties").await;
    assert!(words(&settings).contains("The cache does not answer, so its settings can’t be changed now."));
    let refused = gateway.submit("/cache_properties", "capacity_mb=32&policy=lru").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!(behind(&refused.text(), "name=\"capacity_mb\" value=\""), "32");
    assert_eq!(gateway.submit("/cache_properties/clear", "").await.status, 503);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mysql_the_list_says_so_and_a_cached_image_is_shown() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    database.migrate().await;
    let scene = Scene::with(database).await;
    let _worker = scene.start_worker().await;
    let gateway = scene.start_gateway(&[]).await;
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    gateway.get("/images/cat").await;
    server.stop().await;
    for path in ["/", "/keys_list", "/keys_list?prefix=a&sort=largest"] {
        let page = gateway.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let said = words(&page);
        assert!(
            said.contains("Database is down") && said.contains("The images can’t be listed now."),
            "{said}"
        );
    }
    let page = gateway.get("/image?key=cat").await;
    assert_eq!(page.status, 200);
    assert!(words(&page).contains("Database is down"), "{}", words(&page));
    for fields in ["key=cat", "key=cat&confirmed=1"] {
        let refused = gateway.submit("/keys_list/delete", fields).await;
        assert_eq!(refused.status, 503, "{fields}");
        assert!(words(&refused).contains("MySQL"), "{}", words(&refused));
    }
    gateway.stop().await.unwrap();
}

/// The recorder's binary; it is killed when this is dropped.
struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_recorder(scene: &Scene) -> Recorder {
    let child = Command::new(testkit::service_binary("recorder"))
        .env("NATS_URL", "")
        .env("NATS_PORT", scene.nats.port().to_string())
        .env("NATS_RECORDER_PASSWORD", scene.nats.password("recorder"))
        .env("NATS_SETUP_PASSWORD", scene.nats.password("setup"))
        .env("RECORDER_DATABASE_URL", scene.database.url(Account::Recorder))
        .env("MIGRATION_DATABASE_URL", scene.database.url(Account::Migration))
        .env("GATEWAY_DATABASE_USER", scene.database.user(Account::Gateway))
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .expect("the recorder's binary runs");
    Recorder(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_show_what_was_recorded() {
    let (scene, _worker, gateway) = Scene::running().await;
    let _recorder = start_recorder(&scene);
    gateway.put("/images/cat", samples::chelsea().bytes).await;
    for _ in 0..4 {
        gateway.get("/images/cat").await;
    }
    eventually("the reads are recorded", PATIENCE, async || {
        let rows = gateway.get("/api/stats?range=10m").await.json();
        let rows = rows["rows"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["request_count"].as_u64()).sum::<u64>() == 4
    })
    .await;

    let page = gateway.get("/cache_stats").await;
    let charts = Chart::ALL.len();
    assert_eq!(page.text().matches("<svg class=\"chart ").count(), charts);
    let said = words(&page);
    assert!(said.contains("Hit ratio 75.0 %") && said.contains("3 hits, 1 miss"), "{said}");
    assert!(said.contains("Times are in UTC."), "{said}");
    for range in ["1h", "24h", "7d", "30m"] {
        let page = gateway.get(&format!("/cache_stats?range={range}")).await;
        assert_eq!(
            (page.status, page.text().matches("<svg class=\"chart ").count()),
            (200, charts),
            "{range}"
        );
    }

    let fragment = gateway.get("/cache_stats?range=10m&fragment=1&offset=330").await;
    assert!(
        !fragment.text().contains("<html")
            && fragment.text().matches("<svg class=\"chart ").count() == charts
    );
    assert!(fragment.text().contains("Times are in UTC+5:30."));
    for offset in ["x", "100000", "-1440", ""] {
        let page = gateway.get(&format!("/cache_stats?fragment=1&offset={offset}")).await;
        assert!(page.text().contains("Times are in UTC."), "{offset}");
    }
    for range in ["soon", "0s", "-10m", "%FF", "<b>"] {
        let page = gateway.get(&format!("/cache_stats?range={range}")).await;
        assert_eq!(page.status, 400, "{range}");
        assert!(!page.text().contains("<b>"));
    }
    // The links below the charts.
    let csv = gateway.get("/api/stats?range=10m&format=csv").await;
    assert!(csv.header("content-type").starts_with("text/csv") && csv.text().starts_with("interval_start,"));
    assert_eq!(gateway.get("/api/stats?range=10m&format=xml").await.failure(), 400);

    // The first figures of the first page, and the changes in the history.
    assert!(words(&gateway.get("/").await).contains("Hit ratio 75.0 % of 4 reads"));
    gateway.submit("/cache_properties", "capacity_mb=32&policy=lru").await;
    eventually("the change is in the history", PATIENCE, async || {
        words(&gateway.get("/cache_properties").await).contains("capacity 64 MB → 32 MB by settings page")
    })
    .await;
    // What it did: three of four reads were hits before it, and each afterwards is one.
    eventually("a whole window of reads afterwards is recorded", PATIENCE, async || {
        gateway.get("/images/cat").await;
        words(&gateway.get("/cache_properties").await).contains("75.0 % → 100 %")
    })
    .await;
    let page = gateway.get("/cache_stats").await;
    assert!(words(&page).contains("capacity 64 MB → 32 MB by settings page"), "{}", words(&page));
    assert!(page.text().contains("class=\"chart-mark\""));
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn static_files_are_kept_by_browsers_and_nothing_else_is_given_away() {
    let (_scene, _worker, gateway) = Scene::running().await;
    let page = gateway.get("/").await.text();
    let style = behind(&page, "<link rel=\"stylesheet\" href=\"").to_owned();
    let linked = gateway.get(&style).await;
    assert_eq!((linked.status, linked.header("content-type")), (200, "text/css; charset=utf-8"));
    assert_eq!(linked.header("cache-control"), "public, max-age=31536000, immutable");
    let plain = gateway.get("/static/css/pixcache.css").await;
    assert_eq!(plain.header("cache-control"), "no-cache");
    let held = [("If-None-Match", plain.header("etag"))];
    let fresh = gateway.send("GET", "/static/css/pixcache.css", &held, b"").await;
    assert_eq!((fresh.status, fresh.body.len()), (304, 0));
    assert_eq!(gateway.get("/favicon.ico").await.header("content-type"), "image/svg+xml");
    for path in [
        "/static/",
        "/static/css",
        "/static/nothing.css",
        "/static/..%2Flayout.html",
        "/static/../layout.html",
        "/static/%2e%2e/layout.html",
        "/static//etc/passwd",
        "/static/%FF",
    ] {
        let answer = gateway.get(path).await;
        assert!(answer.status == 404 || answer.status == 400, "{path}: {}", answer.status);
        assert!(!answer.text().contains("{%"), "{path}");
    }
    gateway.stop().await.unwrap();
}
