//! Removes images that nobody uses when their disk fills up: those unused for longest first, until
//! enough of it is free again. Times, order and words are the kubelet's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::events::{Kind, Recorder};
use crate::runtime::{Container, Image, Runtime, RuntimeError};
use crate::stats::host::{self, Disk};

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGcConfig {
    /// From so many percent of the disk in use on.
    pub high_percent: u8,
    /// Until so many are.
    pub low_percent: u8,
    /// None that has been here for less than that.
    pub min_age: Duration,
    /// Between two looks.
    pub period: Duration,
}

impl Default for ImageGcConfig {
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::from_secs(120),
            period: Duration::from_secs(300),
        }
    }
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    /// When it was seen first; none if it was here before the agent.
    first_seen: Option<Instant>,
    /// When it was last seen in use.
    last_used: Option<Instant>,
    /// Bytes.
    size: u64,
    /// It is in use, or must stay.
    is_kept: bool,
}

/// What is known of all images, by their identity.
#[derive(Debug, Default)]
struct Records(Option<BTreeMap<String, Record>>);

impl Records {
    /// Takes in the images there are, and which are used.
    fn note(
        &mut self,
        images: &[Image],
        containers: &[Container],
        kept: &BTreeSet<String>,
        now: Instant,
    ) {
        let old = self.0.take();
        // What is here at the first look may be as old as can be.
        let first_seen = old.as_ref().map(|_| now);
        let old = old.unwrap_or_default();
        let record = |image: &Image| {
            let before = old.get(&image.id).copied();
            let before = before.unwrap_or(Record { first_seen, ..Record::default() });
            let is_used = containers.iter().any(|container| uses(container, image));
            let last_used = if is_used { Some(now) } else { before.last_used };
            let is_kept = is_used || image.pinned || names(image).any(|name| kept.contains(name));
            (image.id.clone(), Record { last_used, size: image.size, is_kept, ..before })
        };
        self.0 = Some(images.iter().map(record).collect());
    }

    /// What may be removed, in that order.
    fn removable(&self, min_age: Duration, now: Instant) -> Vec<(String, u64)> {
        let is_old = |record: &Record| {
            record.first_seen.is_none_or(|seen| now.duration_since(seen) >= min_age)
        };
        let mut all: Vec<_> = self
            .0
            .iter()
            .flatten()
            .filter(|(_, record)| !record.is_kept && is_old(record))
            .collect();
        // None is before any time.
        all.sort_by_key(|(_, record)| (record.last_used, record.first_seen));
        all.into_iter().map(|(id, record)| (id.clone(), record.size)).collect()
    }
}

fn names(image: &Image) -> impl Iterator<Item = &String> {
    std::iter::once(&image.id).chain(&image.tags).chain(&image.digests)
}

fn uses(container: &Container, image: &Image) -> bool {
    names(image).any(|name| *name == container.image_id || *name == container.image)
}

/// Bytes that must be freed of a disk; none where it is not full enough.
fn excess(disk: Disk, config: &ImageGcConfig) -> Option<u64> {
    let available = disk.available_bytes.min(disk.capacity_bytes);
    let free_percent = u64::from(100 - config.low_percent.min(100));
    let wanted = disk.capacity_bytes / 100 * free_percent;
    (used_percent(disk)? >= u64::from(config.high_percent))
        .then(|| wanted.saturating_sub(available))
}

/// Percent of the disk in use, as far as pods are concerned.
fn used_percent(disk: Disk) -> Option<u64> {
    let available = disk.available_bytes.min(disk.capacity_bytes);
    let free = u128::from(available) * 100;
    let free = free.checked_div(u128::from(disk.capacity_bytes))?;
    Some(100 - u64::try_from(free).unwrap_or(100))
}

/// Removes images.
pub struct Collector {
    runtime: Arc<dyn Runtime>,
    config: ImageGcConfig,
    /// Where images are if the runtime does not say.
    data: PathBuf,
    /// Names of images that stay: the sandbox's, and those from files, which nobody could pull again.
    kept: BTreeSet<String>,
    node_name: String,
    recorder: Recorder,
    /// One look at a time.
    records: Mutex<Records>,
}

impl Collector {
    /// Removes images of this runtime, but none of those `kept`.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        config: ImageGcConfig,
        data: PathBuf,
        kept: BTreeSet<String>,
        node_name: String,
        recorder: Recorder,
    ) -> Self {
        let records = Mutex::default();
        Self { runtime, config, data, kept, node_name, recorder, records }
    }

    /// Looks again and again until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let work = async {
            loop {
                if let Err(error) = self.look().await {
                    tracing::warn!(%error, "images were not collected");
                }
                tokio::time::sleep(self.config.period).await;
            }
        };
        // What was cut off is done by the next agent.
        shutdown.run_until_cancelled(work).await;
    }

    /// Removes all images that nobody uses; answers how many bytes that freed.
    pub async fn remove_unused(&self) -> Result<u64, RuntimeError> {
        self.free(u64::MAX).await
    }

    async fn look(&self) -> Result<(), RuntimeError> {
        let folder = self.runtime.image_folder().await.ok().flatten();
        let folder = folder.unwrap_or_else(|| self.data.clone());
        let disk = tokio::task::spawn_blocking(move || host::disk(&folder)).await.ok().flatten();
        let excess = disk.and_then(|disk| Some((disk, excess(disk, &self.config)?)));
        let Some((disk, excess)) = excess else {
            // Noted all the same: when images were last used counts.
            let mut records = self.records.lock().await;
            return self.detect(&mut records, Instant::now()).await;
        };
        tracing::info!(bytes = excess, "the disk of images is too full: free some of it");
        let freed = self.free(excess).await?;
        if freed < excess {
            self.tell_failure(disk, freed);
        }
        Ok(())
    }

    async fn detect(&self, records: &mut Records, now: Instant) -> Result<(), RuntimeError> {
        let images = self.runtime.images().await?;
        let containers = self.runtime.containers(None).await?;
        records.note(&images, &containers, &self.kept, now);
        Ok(())
    }

    /// Removes images until so many bytes are free; answers how many are. Goes on after a failure.
    async fn free(&self, bytes: u64) -> Result<u64, RuntimeError> {
        let mut records = self.records.lock().await;
        let now = Instant::now();
        self.detect(&mut records, now).await?;
        let (mut freed, mut failure) = (0_u64, None);
        for (id, size) in records.removable(self.config.min_age, now) {
            if freed >= bytes {
                break;
            }
            tracing::info!(image = id, bytes = size, "remove an image that nobody uses");
            match self.runtime.remove_image(&id).await {
                Ok(()) => freed = freed.saturating_add(size),
                Err(error) => failure = Some(error),
            }
        }
        drop(records);
        match failure {
            Some(error) => Err(error),
            None => Ok(freed),
        }
    }

    fn tell_failure(&self, disk: Disk, freed: u64) {
        let text = format!(
            "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed \
             to free sufficient space by deleting unused images (freed {freed} bytes). Investigate \
             disk usage, as it could be used by active images, logs, volumes, or other data.",
            used_percent(disk).unwrap_or(100),
            size(disk.capacity_bytes)
        );
        let mut node = Node::default();
        node.metadata.name = Some(self.node_name.clone());
        node.metadata.uid = Some(self.node_name.clone());
        self.recorder.node(&node, Kind::Warning, "FreeDiskSpaceFailed", text);
    }
}

/// `114.7 GiB`.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (u64::BITS - bytes.max(1).leading_zeros() - 1) / 10;
    let unit = usize::try_from(power).ok().and_then(|power| units.get(power)).copied();
    #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
    let number = bytes as f64 / (1_u64 << (power * 10)) as f64;
    format!("{number:.1} {}", unit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events;
    use crate::runtime::fake::{FakeRuntime, container_of};

    const GIB: u64 = 1 << 30;

    fn image(id: &str) -> Image {
        Image { id: id.into(), tags: vec![format!("{id}:1")], size: 10, ..Image::default() }
    }

    fn ids(records: &Records, now: Instant) -> Vec<String> {
        let min_age = Duration::from_secs(120);
        records.removable(min_age, now).into_iter().map(|(id, _)| id).collect()
    }

    fn disk(available_gib: u64) -> Disk {
        Disk { capacity_bytes: 100 * GIB, available_bytes: available_gib * GIB, ..Disk::default() }
    }

    #[test]
    fn a_disk_is_emptied_from_85_down_to_80_percent() {
        let config = ImageGcConfig::default();
        assert_eq!(excess(disk(16), &config), None);
        assert_eq!(excess(disk(15), &config), Some(5 * GIB));
        assert_eq!(excess(disk(3), &config), Some(17 * GIB));
        assert_eq!(excess(Disk::default(), &config), None, "there is no such disk");
        assert_eq!(size(100 * GIB), "100.0 GiB");
        assert_eq!(size(1536), "1.5 KiB");
    }

    #[test]
    fn images_go_by_how_long_nobody_used_them_and_none_that_is_used_or_new() {
        let (mut records, begin) = (Records::default(), Instant::now());
        let minutes = |minutes: u64| begin + Duration::from_secs(60 * minutes);
        let using = |id: &str| container_of(&format!("{id}:1"));
        let kept = ["kept:1".to_owned()].into();
        let pinned = Image { pinned: true, ..image("pinned") };
        let mut all = vec![image("used"), image("was"), image("never"), image("kept"), pinned];
        records.note(&all, &[using("was"), using("used")], &kept, minutes(0));
        all.push(image("new"));
        records.note(&all, &[using("used")], &kept, minutes(5));
        assert_eq!(ids(&records, minutes(6)), ["never", "was"]);
        assert_eq!(ids(&records, minutes(7)), ["never", "new", "was"]);
        all.retain(|image| image.id != "never");
        records.note(&all, &[using("new")], &kept, minutes(8));
        assert_eq!(ids(&records, minutes(8)), ["was", "used"]);
    }

    #[tokio::test]
    async fn unused_images_are_removed_until_enough_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let (recorder, _sender) = events::recorder("n1");
        let runtime = Arc::new(FakeRuntime::with_images(&["a", "b", "c", "pause"]));
        let collector = Collector::new(
            runtime.clone(),
            ImageGcConfig::default(),
            dir.path().to_path_buf(),
            ["pause".to_owned()].into(),
            "n1".to_owned(),
            recorder,
        );
        let freed = collector.free(150).await.unwrap();
        assert_eq!((freed, runtime.image_names()), (200, vec!["c".to_owned(), "pause".to_owned()]));
        assert_eq!(collector.remove_unused().await.unwrap(), 100);
        assert_eq!(runtime.image_names(), ["pause"]);
        runtime.publish("d");
        runtime.pull("d", None).await.unwrap();
        assert_eq!(collector.remove_unused().await.unwrap(), 0, "it has just been pulled");
    }
}
