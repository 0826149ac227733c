//! The flags that say when a node runs short of something, by the kubelet's names.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use kontiki_node_agent::evict::EvictionConfig;
use kontiki_node_agent::evict::threshold::{self, HARD};
use kontiki_node_agent::images::collect::ImageGcConfig;

/// When pods are ended, and images removed.
#[derive(Debug, Args)]
pub(super) struct PressureFlags {
    /// What must be left, or pods are ended at once (empty for none).
    #[arg(
        long,
        env = "KONTIKI_EVICTION_HARD",
        default_value = HARD,
        value_name = "SIGNAL<AMOUNT,..."
    )]
    eviction_hard: String,
    /// What must be left, or pods are ended after a time.
    #[arg(
        long,
        env = "KONTIKI_EVICTION_SOFT",
        default_value = "",
        hide_default_value = true,
        value_name = "SIGNAL<AMOUNT,..."
    )]
    eviction_soft: String,
    /// That time, for each of `--eviction-soft`.
    #[arg(
        long,
        env = "KONTIKI_EVICTION_SOFT_GRACE_PERIOD",
        default_value = "",
        hide_default_value = true,
        value_name = "SIGNAL=DURATION,..."
    )]
    eviction_soft_grace_period: String,
    /// How much more than just enough is won back.
    #[arg(
        long,
        env = "KONTIKI_EVICTION_MINIMUM_RECLAIM",
        default_value = "",
        hide_default_value = true,
        value_name = "SIGNAL=AMOUNT,..."
    )]
    eviction_minimum_reclaim: String,
    /// The most seconds that pods get which are ended for `--eviction-soft`.
    #[arg(
        long,
        env = "KONTIKI_EVICTION_MAX_POD_GRACE_PERIOD",
        default_value_t = 0,
        value_name = "SECONDS"
    )]
    eviction_max_pod_grace_period: u32,
    /// How long the node is said to be under pressure after it was.
    #[arg(
        long,
        env = "KONTIKI_EVICTION_PRESSURE_TRANSITION_PERIOD",
        default_value = "5m0s",
        value_name = "DURATION"
    )]
    eviction_pressure_transition_period: String,
    /// Percent of the disk in use from which on images that nobody uses are removed.
    #[arg(
        long,
        env = "KONTIKI_IMAGE_GC_HIGH_THRESHOLD",
        default_value_t = 85,
        value_parser = clap::value_parser!(u8).range(0..=100),
        value_name = "PERCENT"
    )]
    image_gc_high_threshold: u8,
    /// Percent of the disk in use down to which that goes.
    #[arg(
        long,
        env = "KONTIKI_IMAGE_GC_LOW_THRESHOLD",
        default_value_t = 80,
        value_parser = clap::value_parser!(u8).range(0..=100),
        value_name = "PERCENT"
    )]
    image_gc_low_threshold: u8,
    /// How long an image must have been here before it is removed.
    #[arg(
        long,
        env = "KONTIKI_MINIMUM_IMAGE_TTL_DURATION",
        default_value = "2m0s",
        value_name = "DURATION"
    )]
    minimum_image_ttl_duration: String,
}

impl PressureFlags {
    /// What the flags mean.
    pub(super) fn validate(&self) -> anyhow::Result<(EvictionConfig, ImageGcConfig)> {
        let flags = threshold::Flags {
            hard: &self.eviction_hard,
            soft: &self.eviction_soft,
            soft_grace: &self.eviction_soft_grace_period,
            min_reclaim: &self.eviction_minimum_reclaim,
        };
        let usual = EvictionConfig::default();
        let eviction = EvictionConfig {
            thresholds: threshold::parse(&flags).context("flags of eviction")?,
            transition: duration(
                "--eviction-pressure-transition-period",
                &self.eviction_pressure_transition_period,
            )?,
            grace_max: Duration::from_secs(self.eviction_max_pod_grace_period.into()),
            ..usual
        };
        let (low, high) = (self.image_gc_low_threshold, self.image_gc_high_threshold);
        if low >= high {
            bail!("--image-gc-low-threshold {low}: expected less than the high threshold, {high}");
        }
        let images = ImageGcConfig {
            high_percent: high,
            low_percent: low,
            min_age: duration("--minimum-image-ttl-duration", &self.minimum_image_ttl_duration)?,
            ..ImageGcConfig::default()
        };
        Ok((eviction, images))
    }
}

fn duration(flag: &str, text: &str) -> anyhow::Result<Duration> {
    threshold::duration(text).map_err(|why| anyhow::anyhow!("{flag}: {why}"))
}
