//! `[trace]`: where spans go, and of how many publishes.

use http::Uri;
use serde::{Deserialize, Serialize};

/// `[trace]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// The URL of a collector that takes OTLP over gRPC; empty: nothing is traced.
    pub endpoint: String,
    /// The share of publishes that are traced, 0…1, of those that come without a parent.
    pub sample: f64,
}

// `check` refuses what does not equal itself.
impl Eq for Trace {}

impl Default for Trace {
    fn default() -> Self {
        Self { endpoint: String::new(), sample: 0.01 }
    }
}

impl Trace {
    /// What would not be traced as it is meant.
    pub fn check(&self) -> impl Iterator<Item = String> {
        let wanted = !self.endpoint.is_empty();
        let unable = (wanted && !cfg!(feature = "otel")).then(|| {
            "trace.endpoint is set, but this build cannot trace: build it with `--features otel`, or leave it empty"
                .to_owned()
        });
        let nowhere = (wanted && !is_url(&self.endpoint)).then(|| {
            format!(
                "trace.endpoint is {:?}, it must be the URL of a collector, as http://127.0.0.1:4317",
                self.endpoint
            )
        });
        let share = (!(0.0..=1.0).contains(&self.sample)).then(|| {
            format!("trace.sample is {}, it must be a share of all publishes from 0 to 1", self.sample)
        });
        unable.into_iter().chain(nowhere).chain(share)
    }
}

fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else { return false };
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_traces_nothing_and_contradicts_nothing() {
        assert_eq!((Trace::default().check().count(), Trace::default().endpoint.as_str()), (0, ""));
    }

    #[test]
    fn what_is_no_share_and_no_url_is_refused() {
        for sample in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let wrong: Vec<_> = Trace { sample, ..Trace::default() }.check().collect();
            assert!(wrong.len() == 1 && wrong[0].starts_with("trace.sample"), "{wrong:?}");
        }
        for endpoint in ["127.0.0.1:4317", "collector", "ftp://a:1", "http://", "http:///x"] {
            let wrong: Vec<_> = Trace { endpoint: endpoint.into(), ..Trace::default() }.check().collect();
            assert!(wrong.iter().any(|text| text.contains("must be the URL")), "{endpoint}: {wrong:?}");
        }
    }

    #[test]
    fn a_build_without_traces_says_so() {
        for endpoint in ["http://127.0.0.1:4317", "https://collector.example:4317"] {
            let wrong: Vec<_> = Trace { endpoint: endpoint.into(), ..Trace::default() }.check().collect();
            let unable = wrong.iter().any(|text| text.contains("--features otel"));
            assert_eq!((unable, wrong.len()), (!cfg!(feature = "otel"), usize::from(unable)));
        }
    }

    #[test]
    fn a_share_may_be_written_as_a_whole_number() {
        let read: Trace = toml::from_str("sample = 1").expect("a share");
        assert!((read.sample - 1.0).abs() < f64::EPSILON);
    }
}
