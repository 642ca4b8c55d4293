package bundle

import "crypto/tls"

// baseTLS is the Mozilla intermediate profile, as the SPIFFE federation standard asks of both ends: TLS 1.3, or 1.2
// with forward secrecy and authenticated encryption, on the curves that the profile names. Its finite-field
// Diffie-Hellman suites are left out; Go has none, and "or better" allows it.
//
// Connections are never resumed. Endpoints are polled every few minutes, and a resumed session would outlive the
// certificate that it was opened with.
func baseTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384},
		SessionTicketsDisabled: true,
	}
}
