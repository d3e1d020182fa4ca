//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::connect::{TargetProtocol, TunnelVersion};
use crate::{
    cert, check, config, connect, demo, explain, hash_password, make_key, reference, reload, run, status,
};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success,
    /// It did not.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong (EX_CONFIG of sysexits.h).
    Config,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Config => 78,
        })
    }
}

/// Sluice: a gateway that is changed live and explains its decisions.
#[derive(Parser)]
#[command(name = "sluice", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Run(RunArgs),
    /// Check a configuration and show every problem in it.
    Check(CheckArgs),
    /// Make a certificate for development, and a local authority that issued it.
    Cert(CertArgs),
    /// Run a gateway with three sample origins, to try everything.
    Demo(DemoArgs),
    /// Run a reverse proxy without a configuration file.
    Proxy(ProxyArgs),
    /// Publish services through gateways, by tunnels that are opened from here.
    ///
    /// Say what on the command line, for one service, or in a file, for many.
    Connect(Box<ConnectArgs>),
    /// Make a running gateway read its configuration again.
    Reload(AdminArgs),
    /// Show what a running gateway is doing: listeners, endpoints, breakers, limits, tunnels.
    Status(StatusArgs),
    /// Look at routes.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Look at configurations.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make the hash that stands for a password in a configuration or an htpasswd file.
    ///
    /// The password is the first line of standard input; on a terminal it is asked for, twice, and not shown.
    HashPassword(HashPasswordArgs),
    /// Make an API key and its hash, for a consumer.
    MakeKey(MakeKeyArgs),
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print generated reference pages.
    #[command(hide = true, subcommand)]
    Docs(DocsCommand),
}

/// Which configuration.
#[derive(Args, Clone)]
pub(crate) struct ConfigFile {
    /// The configuration: a .toml, .yaml or .json file. Default: sluice.toml here, else
    /// /etc/sluice/sluice.toml.
    #[arg(value_name = "CONFIG")]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How diagnostics are written to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How problems are shown.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
    /// Do not look into the certificates and other files it names: they are elsewhere.
    #[arg(long)]
    pub(crate) without_files: bool,
}

#[derive(Args)]
pub(crate) struct CertArgs {
    /// Host names and addresses it is good for, for example "localhost *.shop.example 127.0.0.1"; the first
    /// names its files.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Where the files are put, beside the authority's (ca.pem, ca.key), which is made when there is none.
    #[arg(long, default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// How long it is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
    /// For a client instead of a server; names may then also be URIs, e-mail addresses, and the first any name.
    #[arg(long)]
    pub(crate) client: bool,
    /// Replace files that exist; never the authority's.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    Text,
    Json,
}

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) address: String,
    /// Where the admin endpoints listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9900")]
    pub(crate) admin: String,
    /// Print the configuration instead of running it.
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Args)]
pub(crate) struct ProxyArgs {
    /// Where to listen: "127.0.0.1:8080", or ":8080" for every address.
    pub(crate) listen: String,
    /// Where requests go: "localhost:3000" or "http://localhost:3000"; several share the load.
    #[arg(required = true)]
    pub(crate) targets: Vec<String>,
    /// Where the admin endpoints listen. Default: nowhere.
    #[arg(long)]
    pub(crate) admin: Option<String>,
    /// Print the configuration instead of running it.
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Args)]
#[command(override_usage = "sluice connect --router <URL> --route <ROUTE> --target <URL> [OPTIONS]\n       \
                           sluice connect <FILE> [OPTIONS]")]
pub(crate) struct ConnectArgs {
    /// The services, as a .toml, .yaml or .json file.
    #[arg(value_name = "FILE", required_unless_present_all = ["routers", "route", "target"])]
    #[arg(conflicts_with_all = ["service", "gateways", "health", "drain_timeout"])]
    pub(crate) path: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) gateways: ConnectGateways,
    #[command(flatten)]
    pub(crate) service: ConnectService,
    /// Where the health endpoint listens, for example "127.0.0.1:9001". Default: nowhere.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) health: Option<String>,
    /// How long running requests may take to finish after TERM. Default: 30s.
    #[arg(long, value_name = "TIME")]
    pub(crate) drain_timeout: Option<String>,
    /// Print the document instead of running it.
    #[arg(long)]
    pub(crate) print: bool,
    /// How diagnostics are written to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Tell of every tunnel and of every cancelled request.
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// Where a service is published.
#[derive(Args)]
#[group(id = "gateways", multiple = true)]
pub(crate) struct ConnectGateways {
    /// A gateway: "wss://gateway.example:9070". Can be given several times.
    #[arg(long = "router", value_name = "URL")]
    pub(crate) routers: Vec<String>,
    /// Every address that a gateway's name has is a gateway of its own; looked up again each minute.
    #[arg(long)]
    pub(crate) each_address: bool,
    /// A name that people see at the gateway.
    #[arg(long, value_name = "NAME")]
    pub(crate) component: Option<String>,
    /// A field of each registration: "Name: value". Can be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    pub(crate) headers: Vec<String>,
    /// File with the authorities that may have issued the gateways' certificates. Default: those this machine
    /// trusts.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<String>,
    /// File with the certificate that gateways are shown.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<String>,
    /// File with its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<String>,
}

/// What is published.
#[derive(Args)]
#[group(id = "service", multiple = true)]
pub(crate) struct ConnectService {
    /// The first segment of the paths that the service answers; "*" for all that nobody else does.
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// Where the service is: "http://localhost:5000".
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
    /// What is spoken with the target. Default: auto with https, http1 with http.
    #[arg(long, value_name = "PROTOCOL", value_enum)]
    pub(crate) target_protocol: Option<TargetProtocol>,
    /// File with the authorities that may have issued the certificate of an https target.
    #[arg(long, value_name = "FILE")]
    pub(crate) target_ca: Option<String>,
    /// The host it answers for. Default: every one.
    #[arg(long)]
    pub(crate) domain: Option<String>,
    /// Tunnels that are kept open to each gateway. Default: 2.
    #[arg(long, value_name = "TUNNELS")]
    pub(crate) window: Option<u16>,
    /// Versions of the tunnels, the preferred one first. Default: 3.0,1.0.
    #[arg(long = "version", value_name = "VERSION", value_enum, value_delimiter = ',')]
    pub(crate) versions: Vec<TunnelVersion>,
}

/// Which running gateway.
#[derive(Args)]
pub(crate) struct AdminArgs {
    /// The configuration of the running gateway, which says where its admin endpoints are.
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Where its admin endpoints are. Default: as the configuration says.
    #[arg(long)]
    pub(crate) admin: Option<String>,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

#[derive(Args)]
pub(crate) struct HashPasswordArgs {
    /// bcrypt, which Apache httpd and nginx read too. Default: argon2id.
    #[arg(long)]
    pub(crate) bcrypt: bool,
}

#[derive(Args)]
pub(crate) struct MakeKeyArgs {
    /// What the key begins with, so that it is known where it is found: "PREFIX_...".
    #[arg(long, default_value = "sk")]
    pub(crate) prefix: String,
}

#[derive(Subcommand)]
enum RouteCommand {
    /// Say which route a request takes, why, and where it would go.
    Explain(ExplainArgs),
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The method.
    pub(crate) method: String,
    /// The URL, for example "http://shop.example/v1/products/7".
    pub(crate) url: String,
    /// A field of the request: "Name: value".
    #[arg(short = 'H', long = "header")]
    pub(crate) headers: Vec<String>,
    /// The configuration.
    #[arg(short, long = "config")]
    pub(crate) config: Option<PathBuf>,
    /// The client's address.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) client: std::net::IpAddr,
    /// The listener it comes through. Default: the first.
    #[arg(long)]
    pub(crate) listener: Option<String>,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the JSON Schema of configurations.
    Schema,
    /// Print a configuration as it was understood.
    Show(ShowArgs),
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// In which language.
    #[arg(long, value_enum, default_value_t = Language::Toml)]
    pub(crate) format: Language,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Language {
    Toml,
    Yaml,
    Json,
}

#[derive(Subcommand)]
enum DocsCommand {
    /// The table of failures, as Markdown.
    Failures,
}

/// Reads the command line and does what it says.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success };
        }
    };
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Cert(args) => cert::cert(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Proxy(args) => demo::proxy(&args),
        Command::Connect(args) => connect::connect(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Status(args) => status::status(&args),
        Command::Route(RouteCommand::Explain(args)) => explain::explain(&args),
        Command::Config(ConfigCommand::Schema) => config::schema(),
        Command::Config(ConfigCommand::Show(args)) => config::show(&args),
        Command::HashPassword(args) => hash_password::hash_password(&args),
        Command::MakeKey(args) => make_key::make_key(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            say(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Version { json: false } => say(&format!("sluice {}", env!("CARGO_PKG_VERSION"))),
        Command::Version { json: true } => {
            say(&serde_json::json!({ "name": "sluice", "version": env!("CARGO_PKG_VERSION") }).to_string())
        }
        Command::Docs(DocsCommand::Failures) => say(reference::failures().trim_end()),
    }
}

/// Prints a text to standard output; a reader that has left (`| head`) is no failure.
pub(crate) fn say(text: &str) -> Exit {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => Exit::Success,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Success,
        Err(_) => Exit::Failure,
    }
}

/// Prints a text to standard error.
pub(crate) fn complain(text: &str) {
    // Nothing is left to say it to when this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}
