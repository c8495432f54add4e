//! Which gateway to talk to, and as whom: the flags shared by `pub` and `sub`.

use sluice_client::Options;

#[derive(clap::Args)]
pub(crate) struct Target {
    /// Gateway; may be repeated, each attempt goes to the next
    #[arg(long, env = "SLUICE_URL", value_delimiter = ',', default_value = "ws://127.0.0.1:8080/ws")]
    url: Vec<String>,
    /// Token (`sluice token` makes one); without it the gateway may give an anonymous user
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Target {
    pub(crate) fn options(self) -> Options {
        let mut urls = self.url.into_iter();
        let options = urls.by_ref().take(1).fold(Options::new(""), |_, url| Options::new(url));
        let options = urls.fold(options, Options::or);
        match self.token {
            Some(token) => options.token(token),
            None => options,
        }
    }
}
