package attest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/registration/agenttoken"
)

const (
	joinProtocol = "entente-join/1"
	// bindingLabel is the label with which members derive the binding of a session.
	bindingLabel = "EXPORTER-entente-join"
	bindingBytes = 32
	// callTimeout bounds one attempt at one member, with the handshake.
	callTimeout = 15 * time.Second
)

// errOtherServer means that the server at an address has another identity key.
var errOtherServer = errors.New("the server there has another identity key than the member that is known by this " +
	"address; nothing was sent to it")

// call runs fn with the service at a member, over a connection whose other end has proved the member's identity key,
// or, if trust is not nil, an X509-SVID of a member. binding is the value that both ends derive from the session.
func call(
	ctx context.Context, server agenttoken.Server, trust *Trust,
	fn func(ctx context.Context, service ententev1.AttestationServiceClient, binding []byte) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", server.Address)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{joinProtocol},
		// Names and dates of identity certificates have no meaning. The key is compared.
		InsecureSkipVerify: true, //nolint:gosec // the key is pinned, or the member proves itself
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != joinProtocol {
				return fmt.Errorf("the server does not support %s: is it the cluster port of a member?", joinProtocol)
			}
			if trust != nil {
				return nil // the member proves itself before anything is sent
			}
			if len(s.PeerCertificates) != 1 ||
				sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo) != server.Identity {
				return errOtherServer
			}
			return nil
		},
	})
	defer func() { _ = conn.Close() }() // gRPC closes it, unless it never used it
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	session := conn.ConnectionState()
	binding, err := session.ExportKeyingMaterial(bindingLabel, nil, bindingBytes)
	if err != nil {
		return err
	}
	// gRPC receives this one connection, whose other end was verified, and no other after it.
	once := make(chan net.Conn, 1)
	once <- conn
	client, err := grpc.NewClient("passthrough:///"+server.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		}))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // it is not used any more
	service := ententev1.NewAttestationServiceClient(client)
	if trust != nil {
		proof, err := service.ProveMember(ctx, &ententev1.ProveMemberRequest{})
		if err == nil {
			err = trust.verify(proof, binding)
		}
		if err != nil {
			return fmt.Errorf("verify the member by a bundle; no evidence was sent to it: %w", err)
		}
	}
	return fn(ctx, service, binding)
}
