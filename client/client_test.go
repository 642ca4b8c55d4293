package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// credentials issues an SVID for a test, in PEM.
func credentials(t *testing.T, path string) client.PEM {
	t.Helper()
	admin := administrator(t.Context())
	defer admin.Close()
	id := spiffeid.RequireFromString("spiffe://dev.example.org/" + path)
	issued, err := admin.Issue(t.Context(), client.X509SourceConfig{ID: id})
	require.NoError(t, err)
	certificate, key, err := issued.SVID.Marshal()
	require.NoError(t, err)
	return client.PEM{Certificate: certificate, Key: key, Bundle: issued.Bundle().PEM()}
}

func listDomains(t *testing.T, options ...client.Option) error {
	t.Helper()
	c, err := client.New(t.Context(), options...)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = c.Domains().ListDomains(t.Context(), &ententev1.ListDomainsRequest{})
	return err
}

func TestAddressesAreTriedInTurn(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	pem := credentials(t, "stranger")
	load := client.WithPEM(func() (client.PEM, error) { return pem, nil })

	err = listDomains(t, client.WithAddresses(closed.Addr().String(), member.Address), load)
	require.ErrorIs(t, err, client.ErrDenied, "the second member responded")
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.ErrorContains(t, err, "spiffe://dev.example.org/stranger may not call DomainService/ListDomains")

	err = listDomains(t, client.WithAddresses(closed.Addr().String()), load)
	require.ErrorIs(t, err, client.ErrUnavailable)
	require.NotErrorIs(t, err, client.ErrNoLeader)
}

func TestFilesAreReadAtEachHandshake(t *testing.T) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "svid.pem"), filepath.Join(dir, "svid.key"), filepath.Join(dir, "bundle.pem")}
	write := func(p client.PEM) {
		for i, content := range [][]byte{p.Certificate, p.Key, p.Bundle} {
			require.NoError(t, os.WriteFile(files[i], content, 0o600))
		}
	}
	connect := func() *client.Client {
		c, err := client.New(
			t.Context(),
			client.WithAddresses(member.Address),
			client.WithFiles(files[0], files[1], files[2]),
		)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
	write(credentials(t, "first"))
	c := connect()
	write(credentials(t, "second"))
	// On a busy machine a handshake can take longer than the member allows: then the call waits for the next one.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{}, grpc.WaitForReady(true))
	require.ErrorContains(t, err, "spiffe://dev.example.org/second may not call DomainService/ListDomains")

	require.NoError(t, os.Chmod(files[1], 0o644))
	_, err = client.New(t.Context(), client.WithFiles(files[0], files[1], files[2]))
	require.EqualError(t, err, "other users can read the key "+files[1]+" (mode 0644): run 'chmod 600 "+files[1]+
		"', and issue a new SVID if somebody may have read it")
}

func TestTheServerMustBeAMemberOfTheHomeDomain(t *testing.T) {
	admin := administrator(t.Context())
	defer admin.Close()
	source, err := client.NewX509Source(t.Context(), admin, client.X509SourceConfig{ID: web})
	require.NoError(t, err)
	defer source.Close()
	other := spiffeid.RequireTrustDomainFromString("us.example.org")
	err = listDomains(t, client.WithAddresses(member.Address), client.WithSource(other, source, source))
	require.ErrorIs(t, err, client.ErrUnavailable)
	require.ErrorContains(t, err, "the server is spiffe://dev.example.org/entente/member/dev-1, "+
		"which is not in the home trust domain us.example.org")

	err = listDomains(t, client.WithAddresses(member.BundleEndpoint), client.WithSource(home, source, source))
	require.ErrorIs(t, err, client.ErrBundleEndpoint)
}

func TestNewRejects(t *testing.T) {
	pem := client.WithPEM(func() (client.PEM, error) { return client.PEM{}, errors.New("no secret store") })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx     context.Context //nolint:containedctx // an argument
		options []client.Option
		want    string
	}{
		"nothing": {options: nil, want: "the client has no member to connect to: use WithAddresses or WithAdminSocket"},
		"no credentials": {
			options: []client.Option{client.WithAddresses("a:1")},
			want:    "the client has no credentials: use WithFiles, WithPEM or WithSource",
		},
		"both ways": {
			options: []client.Option{client.WithAddresses("a:1"), client.WithAdminSocket("s")},
			want:    "the client has addresses and admin sockets: use one kind",
		},
		"no port": {
			options: []client.Option{client.WithAddresses("eu.example.org")},
			want:    `"eu.example.org" is not an address: write HOST:PORT, such as eu-1.example.org:7440`,
		},
		"unusable credentials": {options: []client.Option{pem}, want: "no secret store"},
		"an ended context":     {ctx: ended, want: "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := test.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			_, err := client.New(ctx, test.options...)
			require.EqualError(t, err, test.want)
		})
	}
}

func TestCanceledCall(t *testing.T) {
	c := administrator(t.Context())
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{})
	require.ErrorIs(t, err, context.Canceled)
}
