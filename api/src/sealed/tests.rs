use kontiki_storage::kv::WatchMessage;
use kontiki_storage::local::LocalKv;

use super::*;
use crate::resources::KINDS;

const KEY: &str = "/registry/secrets/default/s";

fn stores(resources: &[&str]) -> (Arc<LocalKv>, SealedKv) {
    let plain = Arc::new(LocalKv::in_memory());
    let resources: Vec<String> = resources.iter().map(|one| (*one).to_owned()).collect();
    let inner = Arc::clone(&plain) as Arc<dyn Kv>;
    (plain, SealedKv::new(inner, b"a secret", &resources, KINDS))
}

async fn put(kv: &dyn Kv, key: &str, value: impl AsRef<[u8]>) {
    let op = Op::put(key.to_owned(), value.as_ref().to_vec());
    kv.txn(Txn { success: vec![op], ..Txn::default() }.into()).await.unwrap();
}

async fn get(kv: &dyn Kv, key: &str) -> Vec<u8> {
    let found = kv.range(RangeRequest::new(KeyRange::key(key.to_owned()))).await.unwrap();
    found.kvs.first().map(|kv| kv.value.to_vec()).unwrap_or_default()
}

fn shows(value: &[u8], text: &str) -> bool {
    value.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn the_raw_store_shows_no_plain_text_and_who_has_the_secret_reads_it() {
    let (raw, sealed) = stores(&["secrets"]);
    put(&sealed, KEY, "hidden").await;
    put(&sealed, "/registry/configmaps/default/c", "open").await;
    let value = get(&*raw, KEY).await;
    assert!(value.starts_with(b"k8s:enc:kontiki:v1:1:") && !shows(&value, "hidden"));
    assert_eq!(get(&sealed, KEY).await, b"hidden");
    assert_eq!(get(&*raw, "/registry/configmaps/default/c").await, b"open");
    let other = SealedKv::new(raw, b"another", &["secrets".to_owned()], KINDS);
    let read = other.range(RangeRequest::new(KeyRange::key(KEY))).await;
    assert!(read.unwrap_err().to_string().contains("sealed by another cluster"));
}

#[tokio::test]
async fn a_sealed_value_opens_in_its_own_place_only() {
    let (raw, sealed) = stores(&["secrets"]);
    put(&sealed, KEY, "hidden").await;
    let value = get(&*raw, KEY).await;
    put(&*raw, "/registry/secrets/other/s", value).await;
    let key = KeyRange::key("/registry/secrets/other/s");
    assert!(sealed.range(RangeRequest::new(key)).await.is_err());
}

#[tokio::test]
async fn a_watch_and_what_a_transaction_reads_are_opened() {
    let (_, sealed) = stores(&["secrets", "widgets.example.com"]);
    let range = KeyRange::prefix("/registry/");
    let request = WatchRequest { range, start: None, prev_kv: true };
    let mut watcher = sealed.watch(request).await.unwrap();
    let custom = "/registry/example.com/widgets/default/w";
    put(&sealed, custom, "first").await;
    let Some(Ok(WatchMessage::Events(events))) = watcher.next().await else { panic!() };
    assert_eq!(&events[0].kv.value[..], b"first");
    let txn = Txn { success: vec![Op::get(custom), Op::delete(custom)], ..Txn::default() };
    let response = sealed.txn(txn.into()).await.unwrap();
    let OpResponse::Range(range) = &response.responses[0] else { panic!() };
    assert_eq!(&range.kvs[0].value[..], b"first");
    let OpResponse::DeleteRange { prev_kvs, .. } = &response.responses[1] else { panic!() };
    assert_eq!(&prev_kvs[0].value[..], b"first");
    let Some(Ok(WatchMessage::Events(events))) = watcher.next().await else { panic!() };
    assert_eq!(events[0].prev_kv.as_ref().map(|kv| &kv.value[..]), Some(&b"first"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_seals_everything_anew_and_what_was_plain_as_well() {
    let (raw, sealed) = stores(&["secrets"]);
    put(&sealed, KEY, "hidden").await;
    put(&*raw, "/registry/secrets/default/old", "plain").await;
    for number in 0..PAGE {
        put(&*raw, &format!("/registry/secrets/many/{number}"), "plain").await;
    }
    let before = get(&*raw, KEY).await;
    let all = usize::try_from(PAGE).unwrap() + 2;
    assert_eq!(sealed.rotate().await.unwrap(), Resealed { sealed: all, unreadable: 0 });
    let after = get(&*raw, KEY).await;
    assert_ne!(Vault::id_of(&before), Vault::id_of(&after));
    assert_eq!(get(&sealed, KEY).await, b"hidden");
    assert!(!shows(&get(&*raw, "/registry/secrets/default/old").await, "plain"));
    let again = sealed.reseal().await.unwrap();
    assert_eq!(again, Resealed::default(), "all is sealed by the key of now");
}

#[tokio::test]
async fn a_value_that_cannot_be_read_keeps_nobody_from_sealing_the_others() {
    let (raw, sealed) = stores(&["secrets"]);
    put(&*raw, "/registry/secrets/default/a", "k8s:enc:kontiki:v1:9:broken").await;
    put(&*raw, KEY, "plain").await;
    assert_eq!(sealed.reseal().await.unwrap(), Resealed { sealed: 1, unreadable: 1 });
    assert!(!shows(&get(&*raw, KEY).await, "plain"));
    let left = get(&*raw, "/registry/secrets/default/a").await;
    assert_eq!(left, b"k8s:enc:kontiki:v1:9:broken", "nobody makes it worse");
}

#[tokio::test(start_paused = true)]
async fn what_another_server_seals_by_the_key_before_is_sealed_anew_as_well() {
    let (raw, sealed) = stores(&["secrets"]);
    let inner = Arc::clone(&raw) as Arc<dyn Kv>;
    let other = SealedKv::new(inner, b"a secret", &["secrets".to_owned()], KINDS);
    put(&other, KEY, "hidden").await;
    let late = async {
        tokio::time::sleep(vault::FRESH / 2).await;
        put(&other, "/registry/secrets/default/late", "hidden").await;
        let value = get(&*raw, "/registry/secrets/default/late").await;
        assert_eq!(Vault::id_of(&value), Some("1"), "it has not heard of the other key");
    };
    let (rotated, ()) = tokio::join!(sealed.rotate(), late);
    assert_eq!(rotated.unwrap(), Resealed { sealed: 2, unreadable: 0 });
    let value = get(&*raw, "/registry/secrets/default/late").await;
    assert_ne!(Vault::id_of(&value), Some("1"));
}
