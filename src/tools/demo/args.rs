//! The flags of `galo demo`.

use std::path::PathBuf;

/// The whole system on this machine: two processors, two instances, one entry, until Ctrl-C
///
/// Whatever the demo does not set itself, its processes take from the environment as always:
/// GALO_PATIENCE=50ms galo demo --contest preview. Their journals are temporary files; a contest does
/// without
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// The entry, shared by both instances. Any port may be 0: a free one is taken
    #[arg(long, env = "GALO_DEMO_PORT", default_value_t = 9999)]
    pub port: u16,

    /// The two processors, default and fallback
    #[arg(long, env = "GALO_DEMO_PROCESSOR_PORTS", value_name = "PORT,PORT",
        default_value = "8001,8002", value_parser = parse_ports)]
    pub processor_ports: Ports,

    /// The two instances' ports for each other and for GET /metrics
    #[arg(long, env = "GALO_DEMO_PEER_PORTS", value_name = "PORT,PORT",
        default_value = "9101,9102", value_parser = parse_ports)]
    pub peer_ports: Ports,

    /// The two instances' ports for who looks at them: a page
    #[arg(long, env = "GALO_DEMO_ADMIN_PORTS", value_name = "PORT,PORT",
        default_value = "9201,9202", value_parser = parse_ports)]
    pub admin_ports: Ports,

    /// The demo's own page, of the whole system, with buttons
    #[arg(long, env = "GALO_DEMO_PAGE_PORT", default_value_t = 9998)]
    pub page_port: u16,

    /// Write the page with the run's data as one HTML file at the end
    #[arg(long, env = "GALO_DEMO_REPORT", value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Payments a second, and a transaction a second, that the demo makes itself; 0 for none
    #[arg(long, env = "GALO_DEMO_RATE", default_value_t = 200, conflicts_with = "contest",
        value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub rate: u32,

    /// Tell the story once (48 s), and end
    #[arg(long, env = "GALO_DEMO_ONCE", conflicts_with = "contest")]
    pub once: bool,

    /// Play this contest's load, stages and audits, print its score sheet, and end
    #[arg(long, env = "GALO_DEMO_CONTEST", value_enum)]
    pub contest: Option<ContestName>,

    /// Divide the timetable by this; a contest's score is then not comparable
    #[arg(long, env = "GALO_DEMO_SPEED", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=60))]
    pub speed: u32,

    /// Show what the processors and instances log
    #[arg(long, short, env = "GALO_DEMO_VERBOSE")]
    pub verbose: bool,
}

/// Which contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ContestName {
    /// 60 s, 550 users
    Preview,
    /// 300 s, 603 users
    Final,
}

/// Two ports; a type, because clap takes an array for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub [u16; 2]);

fn parse_ports(text: &str) -> Result<Ports, String> {
    const WRONG: &str = "it must be two ports, such as 8001,8002";
    let (first, second) = text.split_once(',').ok_or(WRONG)?;
    let port = |text: &str| text.trim().parse().map_err(|_| WRONG);
    Ok(Ports([port(first)?, port(second)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_pairs() {
        assert_eq!(parse_ports("8001,8002"), Ok(Ports([8001, 8002])));
        assert_eq!(parse_ports("0, 0"), Ok(Ports([0, 0])));
        for wrong in ["", "8001", "8001,", "1,2,3", "8001,99999", "a,b"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }
}
