package endpoint

import "crypto/tls"

// fetchCurves are the key exchanges of a fetch: the profile's curves without the post-quantum hybrid. Bundles, maps and
// statements are public, so nothing has to stay secret, and their authenticity rests on the certificate. The hybrid
// would take a tenth of the time of each poll and more than half of its bytes.
var fetchCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// hybridCurves are the key exchanges of a fetch from an endpoint that refuses those of fetchCurves, as SPIRE servers
// with require_pq_kem do.
var hybridCurves = []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024}

// baseTLS returns the Mozilla intermediate profile, which the SPIFFE federation standard requires of both ends: TLS
// 1.3, or 1.2 with forward secrecy and authenticated encryption, on the curves that the profile names. Go has no
// finite-field Diffie-Hellman suites; "or better" allows to leave them out.
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
