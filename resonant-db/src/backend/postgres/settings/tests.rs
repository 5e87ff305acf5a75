use super::*;

fn parse(url: &str) -> Result<Settings> {
    Settings::parse(url, |_| None)
}

#[test]
fn libpqs_parameters_are_read_in_libpqs_units() -> Result<()> {
    let settings = parse(
        "postgresql://ada:p%40ss@db-1:5433,db-2/app?application_name=svc&connect_timeout=3&tcp_user_timeout=1500\
         &keepalives_count=5&target_session_attrs=prefer-standby&options=-c%20work_mem%3D8MB&channel_binding=disable",
    )?;
    let config = &settings.config;
    assert_eq!((config.get_user(), config.get_dbname()), (Some("ada"), Some("app")));
    assert_eq!(config.get_password(), Some(b"p@ss".as_slice()));
    assert_eq!((config.get_hosts().len(), config.get_ports()), (2, [5433, 5432].as_slice()));
    assert_eq!(config.get_application_name(), Some("svc"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(settings.tcp_user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(config.get_keepalives_retries(), Some(5));
    assert_eq!(config.get_options(), Some("-c work_mem=8MB"));
    assert_eq!(settings.attrs, SessionAttrs::PreferStandby);
    assert_eq!(settings.ssl_mode, SslMode::Prefer);
    assert!(settings.unknown.is_empty());
    Ok(())
}

#[test]
fn a_bad_setting_is_named_and_a_strange_one_remembered() -> Result<()> {
    for (url, named) in [
        ("postgresql://db/app?sslmode=on", "sslmode"),
        ("postgresql://db/app?connect_timeout=soon", "connect_timeout"),
        ("postgresql://db/app?sslcert=/a.crt", "sslkey"),
        ("postgresql:///app", "no host"),
        ("postgresql://db/app?client_encoding=latin1", "UTF8"),
        ("postgresql://db/app?sslnegotiation=direct", "sslmode"),
        ("postgresql://db/app?options=%zz", "escape"),
    ] {
        let error = parse(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.to_string().contains(named), "{error}");
    }
    let error = parse("postgresql://db/app?sslcrl=/x").expect_err("would be less safe");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(parse("postgresql://db/app?aplication_name=x")?.unknown, ["aplication_name"]);
    Ok(())
}

#[test]
fn the_environment_fills_in_what_the_url_leaves_out() -> Result<()> {
    let env = |name: &str| match name {
        "PGUSER" => Some("eve".to_owned()),
        "PGPASSWORD" => Some("s3cr3t".to_owned()),
        "PGSSLMODE" => Some("disable".to_owned()),
        _ => None,
    };
    let settings = Settings::parse("postgresql://ada@db/app", env)?;
    assert_eq!(settings.config.get_user(), Some("ada"));
    assert_eq!(settings.config.get_password(), Some(b"s3cr3t".as_slice()));
    assert_eq!(settings.ssl_mode, SslMode::Disable);
    let settings = Settings::parse("postgresql://db/app?sslmode=allow", env)?;
    assert_eq!(settings.ssl_mode, SslMode::Allow);
    assert!(!format!("{settings:?}").contains("s3cr3t"));
    Ok(())
}

#[test]
fn secrets_do_not_reach_the_message() {
    let error = parse("postgresql://ada:s3cr3t@db/app?sslmode=x").expect_err("a bad mode");
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    let error = parse("postgresql://ada:s3%zzcr3t@db:notaport/app").expect_err("a bad port");
    assert!(!format!("{error:?}").contains("s3%zz"), "{error:?}");
    for url in [
        "postgresql://ada:s3cr3t/app",
        "postgresql://ada:s3cr3t",
        "postgresql://ada:12?port=s3cr3t@db/app",
        "postgresql://ada:12?connect_timeout=s3cr3t@db/app",
        "postgresql://ada:12?statements=s3cr3t@db/app",
        "postgresql://ada:12?s3cr3t@db/app",
    ] {
        let error = parse(url).expect_err(url);
        assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_mode_that_needs_tls_names_the_feature() {
    let error = parse("postgresql://db/app?sslmode=verify-full").expect_err("no TLS here");
    assert!(error.to_string().contains("feature `tls`"), "{error}");
}
