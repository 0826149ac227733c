//! `ring` as the cryptography of `jsonwebtoken`: own tokens are signed by ECDSA over P-256 with
//! SHA-256, and nothing else; those of other issuers are checked by what they usually have.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes it the provider of this process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    // It fails where one was installed before, which nobody else does.
    ONCE.call_once(|| {
        let _installed = PROVIDER.install_default().is_ok();
    });
}

struct RingSigner(EcdsaKeyPair);

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signed = self.0.sign(&SystemRandom::new(), message);
        signed.map(|signed| signed.as_ref().to_vec()).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl RingVerifier {
    fn ecdsa(
        &self,
        by: &'static dyn ring::signature::VerificationAlgorithm,
        message: &[u8],
        signed: &[u8],
    ) -> Option<()> {
        let key = self.key.try_get_as_bytes().ok()?;
        UnparsedPublicKey::new(by, key).verify(message, signed).ok()
    }

    fn rsa(
        &self,
        by: &'static ring::signature::RsaParameters,
        message: &[u8],
        signed: &[u8],
    ) -> Option<()> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else { return None };
        RsaPublicKeyComponents { n, e }.verify(by, message, signed).ok()
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let is_good = match self.algorithm {
            Algorithm::ES256 => self.ecdsa(&ECDSA_P256_SHA256_FIXED, message, signed),
            Algorithm::ES384 => self.ecdsa(&ECDSA_P384_SHA384_FIXED, message, signed),
            Algorithm::RS256 => self.rsa(&RSA_PKCS1_2048_8192_SHA256, message, signed),
            Algorithm::RS384 => self.rsa(&RSA_PKCS1_2048_8192_SHA384, message, signed),
            Algorithm::RS512 => self.rsa(&RSA_PKCS1_2048_8192_SHA512, message, signed),
            Algorithm::PS256 => self.rsa(&RSA_PSS_2048_8192_SHA256, message, signed),
            Algorithm::PS384 => self.rsa(&RSA_PSS_2048_8192_SHA384, message, signed),
            Algorithm::PS512 => self.rsa(&RSA_PSS_2048_8192_SHA512, message, signed),
            _ => None,
        };
        is_good.ok_or_else(signature::Error::new)
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the crate asks for a reference")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::ES256 {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let pair = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        key.as_bytes(),
        &SystemRandom::new(),
    );
    let pair = pair.map_err(|_| new_error(ErrorKind::InvalidEcdsaKey))?;
    Ok(Box::new(RingSigner(pair)))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the crate asks for a reference")]
#[allow(clippy::unnecessary_wraps, reason = "the crate asks for a result")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use serde_json::Value;

    /// Of a key that is nowhere else; their time is over in 2100.
    const MODULUS: &str = "rwr_rkWC7GcuVvkFtZArlchaOorjyWU28XCatRaci8s-5GPertTSKvWifm7FWlX4W62EFGErLfUQqqJ2\
        u2YuW0PTQmguRtxgVVi93VqnJavFxPQaZZsDPk-sAsEcfwQd3JktaahRZY3LAxVvfbPF7HeQWNds8Ta3\
        fkVquA_sRUs3Yf5IKxljsHSB1QLf7mTXFCPtvIumVhi-p1MqdNH1E5eae3sdefIu_plpZJRMuHGiftIY\
        L6UCY6MHFFrBZTyYZbI7sBK4rxVGbzzlqRmotHOjVjudVHoyMzD_rZ-c6kg020SMmCID6_qCD5E_XmYM\
        emjoEbTKw8cnonkP7YrTLQ";
    const TOKENS: [(Algorithm, &str); 2] = [
        (
            Algorithm::RS256,
            "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInJzYSIsICJ0eXAiOiAiSldUIn0.eyJpc3MiOiAiaHR0cHM6\
        Ly9pc3N1ZXIuZXhhbXBsZS5jb20iLCAiYXVkIjogImtvbnRpa2kiLCAic3ViIjogImphbmUiLCAiZXhw\
        IjogNDEwMjQ0NDgwMH0.hKZA3W142jC884oFALl_qggjAom7HF2fiq9oI0WsGk0YLvoGbhaSm1k_04Qr\
        zRhgdq1V5XOrVuqnnfOscJ_NqdjtdwijZwpJAF5HJrvvY6P8UWVKa8WvVm5heUv7Y-lrmcdfErckxdu6\
        74DIs2D5__MYOD57gTGDRDui0QJ8W78eKHq4N38bGi9eIwVp-njNEO4kc2dkVgzVDn020aR_CXB2RHqH\
        3m11m31gNM7SLOquwgnrXGR7q49y2LYrHy6QEUMSxd4t4VSeyB3gAim9XeWkRbZg-n7KKZ7xVy1GD7JE\
        TUNpQGAKTLON-7mxvCujr7QVsj7acS00L_eXhkZqbw",
        ),
        (
            Algorithm::PS256,
            "eyJhbGciOiAiUFMyNTYiLCAia2lkIjogInJzYSIsICJ0eXAiOiAiSldUIn0.eyJpc3MiOiAiaHR0cHM6\
        Ly9pc3N1ZXIuZXhhbXBsZS5jb20iLCAiYXVkIjogImtvbnRpa2kiLCAic3ViIjogImphbmUiLCAiZXhw\
        IjogNDEwMjQ0NDgwMH0.hZy6yKjh5vfggI8EIskzmb1OcRTJ0zYgMcDK4ls2YoSOeRcqkO7XIAR2u_hR\
        tTQjLBjXWCFD3l5IrXzxKaGOiXEjN4jwQyPdLI737oviKJhyLzIvzkxEBqVcfp09cyb3qoHzC0Gji-Pm\
        JuQRLaa8V4FB0Lf-55HdN1yZYI4g_bKj3FSTJUriKUdErN5N9bqcJu8YAv6wgl5F3LWY12gU9VSgcEFU\
        hzmG-uFmPIS4L8UUJ6ehL6WyCDkq3YkMhQ0SF37sL0fZAepsF497QFGorQxITmQMAadKm1BcbhJHEwjL\
        O2C0hIcEV2MUHCiwHdN1AsoTRKmvN19rxNwSbrFkng",
        ),
    ];

    #[test]
    fn tokens_that_others_sign_by_rsa_are_checked() {
        super::install();
        let key = DecodingKey::from_rsa_components(MODULUS, "AQAB").unwrap();
        for (algorithm, token) in TOKENS {
            let mut validation = Validation::new(algorithm);
            validation.set_audience(&["kontiki"]);
            let read = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
            assert_eq!(read.claims["sub"], "jane");
            let (start, signed) = token.rsplit_once('.').unwrap();
            let broken = format!("{start}.A{}", &signed[1..]);
            assert!(jsonwebtoken::decode::<Value>(&broken, &key, &validation).is_err());
            let other = format!("{}.{signed}", start.replace("eyJ", "eyI"));
            assert!(jsonwebtoken::decode::<Value>(&other, &key, &validation).is_err());
        }
    }
}
