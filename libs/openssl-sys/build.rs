//! Compiles AWS-LC's libssl and lays both libraries out as an OpenSSL that is installed:
//! `include/openssl/*.h`, `lib/libssl.a`, `lib/libcrypto.a`. Beside its headers stands
//! `include/threads.h`, which librdkafka thereby finds before the one of the system.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const THREADS: &str = "include/threads.h";

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    // The prefix has aws-lc-sys's version in its name.
    let of_crypto = |what: &str| {
        let (name, value) = env::vars()
            .find(|(name, _)| name.starts_with("DEP_AWS_LC_") && name.ends_with(what))
            .unwrap_or_else(|| panic!("aws-lc-sys has said no {what}"));
        println!("cargo::rerun-if-env-changed={name}");
        value
    };
    let (headers, crypto) = (of_crypto("_INCLUDE"), of_crypto("_LIBCRYPTO"));
    let crypto = Path::new(&of_crypto("_ROOT")).join(format!("lib{crypto}.a"));
    let source = source().join("aws-lc");

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fno-exceptions")
        .flag("-fno-rtti")
        .warnings(false)
        .define("BORINGSSL_IMPLEMENTATION", None)
        .include(&headers)
        .include(source.join("include"))
        .files(files(&source.join("ssl")))
        // Nothing in it needs the C++ library.
        .cpp_link_stdlib(None)
        .compile("aws_lc_ssl");

    let include = out.join("include");
    // Of an earlier build it may be a link.
    let _ = fs::remove_file(&include);
    for folder in [&include, &out.join("lib")] {
        fs::create_dir_all(folder).expect("OUT_DIR can be written");
    }
    link(
        &Path::new(&headers).join("openssl"),
        &include.join("openssl"),
    );
    fs::copy(THREADS, include.join("threads.h")).expect("threads.h is copied");
    link(&crypto, &out.join("lib/libcrypto.a"));
    link(&out.join("libaws_lc_ssl.a"), &out.join("lib/libssl.a"));
    println!("cargo::metadata=root={}", out.display());
    println!("cargo::metadata=include={}", include.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={THREADS}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn link(to: &Path, from: &Path) {
    let _ = fs::remove_file(from);
    symlink(to, from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// The files of the library, from the list that AWS-LC builds by.
fn files(ssl: &Path) -> Vec<PathBuf> {
    let list = ssl.join("CMakeLists.txt");
    let text = fs::read_to_string(&list).unwrap_or_else(|e| panic!("{}: {e}", list.display()));
    let (_, rest) = text.split_once("add_library(").expect("a list of files");
    let (names, _) = rest.split_once(')').expect("the end of the list");
    let named = names.split_whitespace().filter(|name| name.contains('.'));
    named.map(|name| ssl.join(name)).collect()
}

/// Where aws-lc-sys has its sources. It does not say so itself, but cargo does.
fn source() -> PathBuf {
    let answer = Command::new(variable("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo answers");
    let text = String::from_utf8_lossy(&answer.stdout);
    let manifest = text
        .split(r#""manifest_path":""#)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(path, _)| Path::new(path))
        .find(|path| {
            path.to_str()
                .is_some_and(|path| path.contains("aws-lc-sys"))
        });
    let manifest = manifest.unwrap_or_else(|| {
        panic!(
            "cargo metadata knows no aws-lc-sys: {}",
            String::from_utf8_lossy(&answer.stderr)
        )
    });
    manifest
        .parent()
        .expect("a manifest has a folder")
        .to_owned()
}
