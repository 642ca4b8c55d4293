package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// The failures between this member and Vault. [Reason] names the one that an error wraps.
var (
	// ErrUnreachable is a missing answer: no connection, or a timeout.
	ErrUnreachable = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault does not answer, or not to the end; check the address and the network",
	)
	// ErrUntrusted is a certificate of Vault that does not verify.
	ErrUntrusted = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault's certificate is not to be trusted; check ca_file and server_name",
	)
	// ErrSealed is the answer of a Vault that is sealed, or has no active node.
	ErrSealed = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault is sealed or has no active node; unseal it",
	)
	// ErrBusy is the answer of a rate limit, or of an overloaded Vault.
	ErrBusy = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault has too much to do, or a quota is used up",
	)
	// ErrServer is any other failure inside of Vault.
	ErrServer = errors.New("Vault failed; see its log") //nolint:staticcheck // ST1005: Vault is a name
	// ErrDenied is a valid login without a right, or an invalid one whose replacement was refused too.
	ErrDenied = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault denies it; compare the token's policies with the output of `entente vault policy`",
	)
	// ErrLogin is a refusal of the credentials.
	ErrLogin = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault does not accept the login; check the auth block and what it points at",
	)
	// ErrNotFound is a missing mount, issuer or auth method.
	ErrNotFound = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault has nothing there; check the mount, the issuer and the namespace",
	)
	// ErrRejected is a request that Vault understood and refused.
	ErrRejected = errors.New("Vault rejects the request") //nolint:staticcheck // ST1005: Vault is a name
	// ErrMalformed is an answer that does not match Vault's API.
	ErrMalformed = errors.New("the answer is not one of Vault's; check that nothing stands between")
	// ErrRedirect is a redirect that is not followed.
	ErrRedirect = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault redirects more than once, or to plain HTTP; check api_addr of its nodes, and what stands between",
	)
	// ErrTooLarge is an answer that is larger than any valid one.
	ErrTooLarge = errors.New("the answer is larger than 1 MiB")
	// ErrSecret is a secret, a file or a certificate on this member that cannot be read.
	ErrSecret = errors.New("cannot read what the login needs")

	// ErrNoMount is a hosted domain without a PKI mount.
	ErrNoMount = errors.New("the domain has no PKI mount of its own in Vault; configure one for it")
	// ErrWrongKey, ErrWrongName, ErrNotCA, ErrTooShort and ErrNoChain refuse a certificate that Vault signed.
	ErrWrongKey = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault signed another key than the request's",
	)
	ErrWrongName = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault signed another name than the domain's",
	)
	ErrNotCA = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault signed something that is no signing certificate",
	)
	ErrTooShort = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault shortened the lifetime too far; raise the mount's max_lease_ttl, or renew its CA",
	)
	ErrNoChain = errors.New("what Vault signed does not chain to an anchor")
	// ErrUnfit is an issuer below which verifiers refuse X509-SVIDs.
	ErrUnfit = errors.New(
		"verifiers refuse X509-SVIDs below this issuer; have its certificate replaced, or make another issuer the " +
			"default",
	)
	// ErrNoAnchor is an issuer whose chain has no self-signed top in Vault.
	ErrNoAnchor = errors.New(
		"the issuer's chain ends below a root that Vault does not know; name the root by anchors = \"file:…\"",
	)
	// ErrKeyGone is a key that Vault's Transit no longer has.
	ErrKeyGone = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault's Transit does not have the key any more; its authority is replaced",
	)
	// ErrKeyChanged is a key that another key, or another version, has replaced.
	ErrKeyChanged = errors.New(
		"another key stands in Vault's Transit under the name of this one; find out who put it there",
	)
	// ErrKeyKind is a new key that differs from the request: it can leave Vault, for example.
	ErrKeyKind = errors.New( //nolint:staticcheck // ST1005: Vault is a name
		"Vault's Transit made another key than requested; check the proxies between",
	)
	// ErrSharedAnchor is a root of two hosted domains.
	ErrSharedAnchor = errors.New(
		"two hosted domains below one root could impersonate each other; give each domain a root of its own",
	)
)

var reasons = []struct {
	err    error
	reason string
}{
	{
		ErrUntrusted,
		"untrusted",
	}, {ErrSealed, "sealed"}, {ErrBusy, "busy"}, {ErrServer, "server"}, {ErrLogin, "login"}, {ErrDenied, "denied"},
	{
		ErrNotFound,
		"not_found",
	}, {ErrRejected, "rejected"}, {ErrTooLarge, "too_large"}, {ErrRedirect, "redirect"},
	{ErrMalformed, "malformed"}, {ErrSecret, "secret"},
	{
		ErrNoMount,
		"no_mount",
	}, {ErrWrongKey, "wrong_key"}, {ErrWrongName, "wrong_name"}, {ErrNotCA, "not_ca"}, {ErrTooShort, "too_short"},
	{ErrNoChain, "no_chain"}, {ErrUnfit, "unfit_issuer"},
	{ErrNoAnchor, "no_anchor"}, {ErrSharedAnchor, "shared_anchor"},
	{ErrKeyGone, "key_gone"}, {ErrKeyChanged, "key_changed"}, {ErrKeyKind, "key_kind"}, {ErrUnreachable, "unreachable"},
}

// Reason returns the name of an error for metrics: "ok" for nil and "other" for errors of other packages.
func Reason(err error) string {
	if err == nil {
		return "ok"
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	return "other"
}

// Transient reports whether the same call can succeed later without a change on this side.
func Transient(err error) bool {
	for _, e := range []error{
		ErrUnreachable, ErrSealed, ErrBusy, ErrServer, ErrRedirect, ErrMalformed, ErrTooLarge, ErrUntrusted,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// classify wraps an error of Vault's client in its sentinel.
func classify(err error) error {
	if err == nil || Reason(err) != "other" {
		return err
	}
	var (
		response *api.ResponseError
		verify   *tls.CertificateVerificationError
		hostname x509.HostnameError
		unknown  x509.UnknownAuthorityError
		syntax   *json.SyntaxError
		kind     *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &response):
		return fmt.Errorf("%w (HTTP %d%s)", ofStatus(response.StatusCode), response.StatusCode, vaultText(response))
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &verify), errors.As(err, &hostname), errors.As(err, &unknown):
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	case errors.As(err, &syntax), errors.As(err, &kind):
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

func ofStatus(status int) error {
	switch {
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return ErrDenied
	case status == http.StatusNotFound:
		return ErrNotFound
	case status == http.StatusTooManyRequests:
		return ErrBusy
	case status == http.StatusServiceUnavailable:
		return ErrSealed
	case status >= 500:
		return ErrServer
	case status >= 400:
		return ErrRejected
	}
	return ErrMalformed
}

// maxSaid bounds the text of Vault that is repeated.
const maxSaid = 300

// vaultText returns Vault's own error text on one line. Text that is not from Vault is not repeated.
func vaultText(r *api.ResponseError) string {
	if r.RawError || len(r.Errors) == 0 {
		return ""
	}
	words := strings.Join(strings.Fields(strings.Join(r.Errors, "; ")), " ")
	if len(words) > maxSaid {
		words = strings.ToValidUTF8(words[:maxSaid], "") + "…"
	}
	return ": " + words
}
