package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// defaultSocket is that of a member with the default data folder of a server.
	defaultSocket  = "/var/lib/entente/admin.sock"
	defaultTimeout = 10 * time.Second
	// memberPath is where the members of a cluster are below their home trust domain.
	memberPath = "/entente/member/"
	// endpointPath is where a bundle endpoint is, which is on another port of the same machine.
	endpointPath = "/entente/bundle-endpoint"
	isEndpoint   = "--address names a bundle endpoint, which answers no commands: give the port of the API, 7440 unless member.listen says another"
	// maxMessageBytes bounds an answer: lists of many thousand rows.
	maxMessageBytes = 64 << 20
)

// asking returns what a command calls as cobra's RunE: fn with a connection, and a context that ends with the timeout.
func (a *app) asking(fn func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), a.flags.timeout)
		defer cancel()
		return a.connected(func(conn *grpc.ClientConn) error { return fn(ctx, conn, cmd, args) })
	}
}

// following is asking without a timeout, for what goes on until it is interrupted. Being interrupted is no failure.
func (a *app) following(fn func(ctx context.Context, conn *grpc.ClientConn, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := a.connected(func(conn *grpc.ClientConn) error { return fn(cmd.Context(), conn, cmd, args) })
		if cmd.Context().Err() != nil {
			err = nil // that is how it ends
		}
		return err
	}
}

// connected calls fn with a connection to the member that the flags and the environment name.
func (a *app) connected(fn func(*grpc.ClientConn) error) error {
	conn, err := a.connect()
	if err != nil {
		return err
	}
	return errors.Join(fn(conn), conn.Close())
}

func (a *app) connect() (*grpc.ClientConn, error) {
	address, socket, err := a.whom()
	if err != nil {
		return nil, err
	}
	target, creds := "unix:"+socket, insecure.NewCredentials() // nobody is between this process and the socket
	if address != "" {
		target = "passthrough:///" + address
		if creds, err = a.credentials(); err != nil {
			return nil, err
		}
	} else if err := checkSocket(socket); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, append(callOptions(), grpc.WithTransportCredentials(creds))...)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to %s: %w", address+socket, err)
	}
	return conn, nil
}

// callOptions are those of every connection to a member. One that says nothing is asked whether it is there, since a host that lost
// its power ends no connection: what follows it would wait for ever. Members let themselves be asked every five seconds.
func callOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
}

// whom says whom to ask: a flag counts before the environment.
func (a *app) whom() (address, socket string, err error) {
	f := a.flags
	switch {
	case f.addressSet && f.socketSet:
		return "", "", usagef("--address and --socket both say whom to ask: give one of them")
	case f.addressSet:
		address = f.address
	case f.socketSet:
		socket = f.socket
	default:
		address, socket = a.getenv("ENTENTE_ADDRESS"), a.getenv("ENTENTE_SOCKET")
		if address != "" && socket != "" {
			return "", "", usagef("ENTENTE_ADDRESS and ENTENTE_SOCKET both say whom to ask: unset one of them, or give --address or --socket")
		}
		if address == "" && socket == "" {
			socket = defaultSocket
		}
	}
	if address != "" || f.addressSet {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return "", "", usagef("%q is no address: write HOST:PORT, such as eu-1.example.org:7440", address)
		}
		return address, "", nil
	}
	if socket, err = filepath.Abs(socket); err != nil {
		return "", "", fmt.Errorf("find the admin socket: %w", err)
	}
	return "", socket, nil
}

func checkSocket(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no admin socket %s: start the server, name the admin.sock in its data folder with --socket or ENTENTE_SOCKET, or a member with --address", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not use the admin socket %s: run as the server's user or root, or use --address with an SVID", path)
	case err != nil:
		return fmt.Errorf("use the admin socket %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is no socket: name the admin.sock in the server's data folder", path)
	}
	return nil
}

// credentials are mutual TLS 1.3: this command proves to be the SPIFFE ID of its SVID, the other end a member of the
// cluster whose authorities are in the bundle file.
func (a *app) credentials() (credentials.TransportCredentials, error) {
	files := []struct{ flag, env, value string }{
		{"--cert", "ENTENTE_CERT", a.flags.certFile},
		{"--key", "ENTENTE_KEY", a.flags.keyFile},
		{"--bundle", "ENTENTE_BUNDLE", a.flags.bundleFile},
	}
	for i := range files {
		if files[i].value == "" {
			files[i].value = a.getenv(files[i].env)
		}
		if files[i].value == "" {
			return nil, usagef("%s is missing: --address goes with --cert, --key and --bundle, as 'entente svid x509' writes them", files[i].flag)
		}
	}
	own := identityFiles{files[0].value, files[1].value, files[2].value}
	if _, err := own.GetX509SVID(); err != nil {
		return nil, err
	}
	if _, err := loadAuthorities(own.bundle); err != nil {
		return nil, err
	}
	// It checks the other end in a hook that resumed sessions skip; without a session cache none is resumed.
	config := tlsconfig.MTLSClientConfig(own, own, isMember)
	config.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(config), nil
}

func isMember(id spiffeid.ID, _ [][]*x509.Certificate) error {
	if id.Path() == endpointPath {
		return errors.New(isEndpoint)
	}
	if name, ok := strings.CutPrefix(id.Path(), memberPath); !ok || strings.Contains(name, "/") {
		return fmt.Errorf("the other end proves to be %s, which is no member of a cluster (spiffe://DOMAIN%sID)", id, memberPath)
	}
	return nil
}

// identityFiles are the files of this command's own SVID. They are read at each handshake: a command that stays outlives
// what is in them, and may be the one that renews them.
type identityFiles struct{ cert, key, bundle string }

// GetX509SVID implements the source that go-spiffe presents.
func (f identityFiles) GetX509SVID() (*x509svid.SVID, error) { return loadSVID(f.cert, f.key) }

// GetX509BundleForTrustDomain implements the source that go-spiffe verifies by.
func (f identityFiles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	all, err := loadAuthorities(f.bundle)
	if err != nil {
		return nil, err
	}
	return x509bundle.FromX509Authorities(td, all), nil
}

func loadSVID(certFile, keyFile string) (*x509svid.SVID, error) {
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key %s can be read by others (mode %04o): run 'chmod 600 %s', and issue a new SVID if somebody may have", keyFile, info.Mode().Perm(), keyFile)
	}
	svid, err := x509svid.Load(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the SVID in %s and %s: %w", certFile, keyFile, err)
	}
	if end := svid.Certificates[0].NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("the SVID in %s expired at %s: issue a new one with 'entente svid x509'", certFile, end.UTC().Format(time.RFC3339))
	}
	return svid, nil
}

// authorities vouch for the members of one cluster. The file says not for which trust domain it is, but no two hosted
// domains share an authority, so whoever is signed by these is of that domain.
type authorities []*x509.Certificate

// maxAuthoritiesBytes is far above a bundle of as many authorities as a domain can have.
const maxAuthoritiesBytes = 1 << 20

func loadAuthorities(file string) (authorities, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAuthoritiesBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the bundle: %w", err)
	case len(data) > maxAuthoritiesBytes:
		return nil, fmt.Errorf("%s is larger than %d bytes: make it anew with 'entente bundle show --format pem'", file, maxAuthoritiesBytes)
	}
	all, err := parseAuthorities(data)
	if err != nil {
		return nil, fmt.Errorf("%s %w", file, err)
	}
	return all, nil
}

// parseAuthorities reads a file of PEM certificates and nothing else. A block that cannot be read is refused rather than
// passed over: who leaves an authority out trusts others than were meant.
func parseAuthorities(data []byte) (authorities, error) {
	begun := bytes.Count(data, []byte("-----BEGIN"))
	var all authorities
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, errors.New("holds something that is no certificate: make it anew with 'entente bundle show --format pem'")
		}
		all = append(all, c)
	}
	switch {
	case begun == 0:
		return nil, errors.New("holds no PEM certificate: make it with 'entente bundle show --format pem', or 'entente svid x509'")
	case len(all) != begun:
		return nil, fmt.Errorf("holds %d PEM blocks of which %d can be read: make it anew with 'entente bundle show --format pem'", begun, len(all))
	}
	return all, nil
}
