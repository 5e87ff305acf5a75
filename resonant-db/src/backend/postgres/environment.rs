//! libpq's environment: what fills in what a URL leaves out, and what means nothing here and is said.

/// The environment's word for a parameter. Those of the place are heeded only where the URL names none.
pub(super) const HEEDED: [(&str, &str); 18] = [
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "dbname"),
    ("PGPORT", "port"),
    ("PGAPPNAME", "application_name"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGCLIENTENCODING", "client_encoding"),
];

/// The same for the place, heeded only where the URL names none: with several nodes all would be at the same one.
pub(super) const PLACE: [(&str, &str); 2] = [("PGHOST", "host"), ("PGHOSTADDR", "hostaddr")];

/// The old word for `sslmode=require`.
pub(super) const REQUIRE_SSL: &str = "PGREQUIRESSL";

/// What means nothing here, with the values that ask for nothing that is not so.
pub(super) const UNHEEDED: [(&str, &[&str]); 22] = [
    ("PGDATESTYLE", &[]),
    ("PGGEQO", &[]),
    ("PGGSSDELEGATION", &["0"]),
    ("PGGSSENCMODE", &["disable", "prefer"]),
    ("PGGSSLIB", &[]),
    ("PGKRBSRVNAME", &[]),
    ("PGLOCALEDIR", &[]),
    ("PGMAXPROTOCOLVERSION", &["latest", "3.0", "3.2"]),
    ("PGMINPROTOCOLVERSION", &["3.0"]),
    ("PGPASSFILE", &[]),
    ("PGREALM", &[]),
    ("PGREQUIREAUTH", &[]),
    ("PGREQUIREPEER", &[]),
    ("PGSERVICE", &[]),
    ("PGSERVICEFILE", &[]),
    ("PGSSLCERTMODE", &["allow"]),
    ("PGSSLCRL", &[]),
    ("PGSSLCRLDIR", &[]),
    ("PGSSLMAXPROTOCOLVERSION", &[]),
    ("PGSSLMINPROTOCOLVERSION", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("PGSYSCONFDIR", &[]),
    ("PGTZ", &[]),
];

/// The variables that are set and mean nothing here.
pub(super) fn unheeded(env: impl Fn(&str) -> Option<String>) -> Vec<&'static str> {
    let matters = |(name, harmless): &&(&str, &[&str])| {
        env(name).is_some_and(|value| !value.is_empty() && !harmless.contains(&value.as_str()))
    };
    UNHEEDED.iter().filter(matters).map(|(name, _)| *name).collect()
}

/// Whether text travels in this encoding, which it always does in UTF-8.
pub(super) fn is_our_encoding(value: &str) -> bool {
    ["utf8", "utf-8", "unicode", "auto"].iter().any(|ours| value.eq_ignore_ascii_case(ours))
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::Result;

    /// All that libpq reads, up to version 18: <https://www.postgresql.org/docs/current/libpq-envars.html>.
    const LIBPQ: [&str; 43] = [
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGREQUIREAUTH",
        "PGCHANNELBINDING",
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGOPTIONS",
        "PGAPPNAME",
        "PGSSLMODE",
        "PGREQUIRESSL",
        "PGSSLNEGOTIATION",
        "PGSSLCOMPRESSION",
        "PGSSLCERT",
        "PGSSLKEY",
        "PGSSLCERTMODE",
        "PGSSLROOTCERT",
        "PGSSLCRL",
        "PGSSLCRLDIR",
        "PGSSLSNI",
        "PGREQUIREPEER",
        "PGSSLMINPROTOCOLVERSION",
        "PGSSLMAXPROTOCOLVERSION",
        "PGGSSENCMODE",
        "PGKRBSRVNAME",
        "PGGSSLIB",
        "PGGSSDELEGATION",
        "PGCONNECT_TIMEOUT",
        "PGCLIENTENCODING",
        "PGTARGETSESSIONATTRS",
        "PGLOADBALANCEHOSTS",
        "PGMINPROTOCOLVERSION",
        "PGMAXPROTOCOLVERSION",
        "PGDATESTYLE",
        "PGTZ",
        "PGGEQO",
        "PGSYSCONFDIR",
        "PGLOCALEDIR",
        "PGREALM",
    ];

    fn with(url: &str, variable: &str, value: &str) -> Result<Settings> {
        Settings::parse(url, |name| (name == variable).then(|| value.to_owned()))
    }

    #[test]
    fn every_variable_of_libpqs_is_heeded_or_named() -> Result<()> {
        for variable in LIBPQ {
            let heeded = HEEDED.iter().chain(&PLACE).any(|(name, _)| *name == variable)
                || variable == REQUIRE_SSL;
            let named = UNHEEDED.iter().any(|(name, _)| *name == variable);
            assert!(heeded != named, "{variable}");
            if named {
                let settings = with("postgresql://db/app", variable, "something")?;
                assert_eq!(settings.unheeded, [variable]);
                let settings = with("postgresql://db/app", variable, "")?;
                assert!(settings.unheeded.is_empty(), "{variable} is set to nothing");
            }
        }
        assert_eq!(LIBPQ.len(), HEEDED.len() + PLACE.len() + UNHEEDED.len() + 1);
        for (variable, harmless) in UNHEEDED {
            for value in harmless {
                assert!(with("postgresql://db/app", variable, value)?.unheeded.is_empty());
            }
        }
        Ok(())
    }

    #[test]
    fn each_variable_does_what_its_parameter_in_the_url_does() -> Result<()> {
        let values = [
            ("PGUSER", "user", "ada"),
            ("PGDATABASE", "dbname", "orders"),
            ("PGPORT", "port", "6000"),
            ("PGAPPNAME", "application_name", "svc"),
            ("PGOPTIONS", "options", "-c work_mem=8MB"),
            ("PGSSLMODE", "sslmode", "disable"),
            ("PGSSLCOMPRESSION", "sslcompression", "0"),
            ("PGSSLSNI", "sslsni", "1"),
            ("PGSSLROOTCERT", "sslrootcert", "/ca.crt"),
            ("PGCONNECT_TIMEOUT", "connect_timeout", "7"),
            ("PGCHANNELBINDING", "channel_binding", "disable"),
            ("PGTARGETSESSIONATTRS", "target_session_attrs", "standby"),
            ("PGLOADBALANCEHOSTS", "load_balance_hosts", "random"),
            ("PGCLIENTENCODING", "client_encoding", "UTF8"),
            ("PGSSLNEGOTIATION", "sslnegotiation", "postgres"),
        ];
        let shown = |settings: Settings| {
            let port = settings.port(0);
            let Settings { config, ssl_mode, ssl_direct, certificates, attrs, .. } = settings;
            format!("{config:?} {port} {ssl_mode:?} {ssl_direct} {certificates:?} {attrs:?}")
        };
        let plain = shown(with("postgresql://db", "", "")?);
        for (variable, key, value) in values {
            let by_variable = with("postgresql://db", variable, value)?;
            assert!(
                by_variable.unheeded.is_empty() && by_variable.unknown.is_empty(),
                "{variable}"
            );
            let escaped = value.replace(' ', "%20").replace('/', "%2F");
            let by_url = with(&format!("postgresql://db?{key}={escaped}"), "", "")?;
            let by_variable = shown(by_variable);
            assert_eq!(by_variable, shown(by_url), "{variable}");
            let nothing = ["PGSSLCOMPRESSION", "PGSSLSNI", "PGCLIENTENCODING", "PGSSLNEGOTIATION"];
            assert_eq!(by_variable == plain, nothing.contains(&variable), "{variable}");
        }
        let password = with("postgresql://db", "PGPASSWORD", "s3cr3t")?;
        assert_eq!(password.config.get_password(), Some(b"s3cr3t".as_slice()));
        let pair = |name: &str| match name {
            "PGSSLCERT" => Some("/a.crt".to_owned()),
            "PGSSLKEY" => Some("/a.key".to_owned()),
            _ => None,
        };
        let pair = Settings::parse("postgresql://db", pair)?;
        assert_eq!(pair.certificates.client, Some(("/a.crt".into(), "/a.key".into())));
        Ok(())
    }

    #[test]
    fn the_place_is_heeded_where_the_url_names_none() -> Result<()> {
        let hosts = |settings: Settings| format!("{:?}", settings.config.get_hosts());
        assert!(hosts(with("postgresql:///app", "PGHOST", "db-1")?).contains("db-1"));
        assert!(!hosts(with("postgresql://db-2/app", "PGHOST", "db-1")?).contains("db-1"));
        assert!(!hosts(with("postgresql:///app?host=db-2", "PGHOST", "db-1")?).contains("db-1"));
        let port = |url: &str| with(url, "PGPORT", "6000").map(|settings| settings.port(0));
        assert_eq!(port("postgresql://ada:p@db/app")?, 6000);
        assert_eq!(port("postgresql://ada:p@db:7000/app")?, 7000);
        assert_eq!(port("postgresql://db/app?port=7000")?, 7000);
        assert_eq!(port("postgresql://db:7000/app?port=8000")?, 8000);
        assert_eq!(port("postgresql://[::1]/app")?, 6000);
        assert_eq!(port("postgresql://[::1]:7000/app")?, 7000);
        assert_eq!(port("postgresql:///app?host=/tmp&port=7000")?, 7000);
        let pinned = with("postgresql:///app", "PGHOSTADDR", "10.0.0.1")?;
        assert_eq!(pinned.config.get_hostaddrs().len(), 1);
        let pinned = with("postgresql://db/app", "PGHOSTADDR", "10.0.0.1")?;
        assert!(pinned.config.get_hostaddrs().is_empty());
        Ok(())
    }

    #[test]
    fn a_foreign_encoding_is_named_and_an_old_word_is_understood() -> Result<()> {
        let latin = with("postgresql://db/app", "PGCLIENTENCODING", "LATIN1")?;
        assert_eq!(latin.unheeded, ["PGCLIENTENCODING"]);
        #[cfg(feature = "tls")]
        {
            use super::super::settings::SslMode;
            let required = with("postgresql://db/app", REQUIRE_SSL, "1")?;
            assert_eq!(required.ssl_mode, SslMode::Require);
            let said = with("postgresql://db/app?sslmode=disable", REQUIRE_SSL, "1")?;
            assert_eq!(said.ssl_mode, SslMode::Disable);
        }
        assert!(with("postgresql://db/app", REQUIRE_SSL, "0").is_ok());
        Ok(())
    }
}
