package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

type contact struct {
	f *fleet
	c *node
}

func (c contact) LastContact() time.Time {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	if !c.c.silent {
		c.c.lastContact = c.f.now()
	}
	return c.c.lastContact
}

func (c contact) ClockPlausible() bool { return c.ClockSane() }
func (c contact) ClockSane() bool      { return c.c.is(func() bool { return !c.c.insane }) }

// line is the connection from one member to another, without a network.
type line struct {
	f        *fleet
	from, to string
}

func (l line) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "there are no streams here")
}

func (l line) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	i := slices.IndexFunc(l.f.nodes, func(c *node) bool { return c.id == l.to })
	if i < 0 || l.f.nodes[i].isDown() {
		return status.Errorf(codes.Unavailable, "member %s is down", l.to)
	}
	service := l.f.nodes[i].SigningService()
	ctx = access.WithCaller(ctx, access.MemberCaller(l.from))
	var answer proto.Message
	var err error
	switch method {
	case ententev1.SigningService_SignX509SVID_FullMethodName:
		answer, err = service.SignX509SVID(ctx, args.(*ententev1.SignX509SVIDRequest))
	case ententev1.SigningService_SignJWTSVID_FullMethodName:
		answer, err = service.SignJWTSVID(ctx, args.(*ententev1.SignJWTSVIDRequest))
	default:
		return status.Errorf(codes.Unimplemented, "no method %s", method)
	}
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), answer)
	return nil
}

// ledger is an audit log in memory.
type ledger struct {
	mu     sync.Mutex
	events []audit.Event
	refuse func(audit.Event) error
}

func (l *ledger) Record(e audit.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		if err := l.refuse(e); err != nil {
			return err
		}
	}
	l.events = append(l.events, e)
	return nil
}

func (l *ledger) about(action string) []audit.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.events), func(e audit.Event) bool { return e.Action != action })
}

func (l *ledger) refuseWhen(when func(audit.Event) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = func(e audit.Event) error {
		if when(e) {
			return errors.New("no space left on device")
		}
		return nil
	}
}

// x509Request returns a request for an X509-SVID with a fresh key.
func x509Request(t testing.TB, id string) *ententev1.IssueX509SVIDRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &ententev1.IssueX509SVIDRequest{SpiffeId: id, Csr: csr(t, key)}
}

// jwtRequest returns a request for a JWT-SVID.
func jwtRequest(audience ...string) *ententev1.IssueJWTSVIDRequest {
	return &ententev1.IssueJWTSVIDRequest{SpiffeId: workload(1), Audience: audience}
}

// signRequest returns a forwarded request for an X509-SVID.
func signRequest(t testing.TB, id string) *ententev1.SignX509SVIDRequest {
	t.Helper()
	return &ententev1.SignX509SVIDRequest{Request: x509Request(t, id)}
}

// asMember returns a context whose caller is a member.
func asMember(id string) context.Context {
	return access.WithCaller(context.Background(), access.MemberCaller(id))
}

func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return der
}

func parse(t testing.TB, ders [][]byte) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		chain = append(chain, c)
	}
	return chain
}

func workload(n int) string { return fmt.Sprintf("spiffe://%s/web/%d", home.Name(), n) }

func taintRequest(id string) *ententev1.TaintAuthorityRequest {
	return &ententev1.TaintAuthorityRequest{TrustDomain: home.Name(), Id: id}
}

func revokeRequest(id string) *ententev1.RevokeAuthorityRequest {
	return &ententev1.RevokeAuthorityRequest{
		TrustDomain: home.Name(), What: &ententev1.RevokeAuthorityRequest_Id{Id: id},
	}
}

func revokeAnchorRequest(anchor string) *ententev1.RevokeAuthorityRequest {
	return &ententev1.RevokeAuthorityRequest{
		TrustDomain: home.Name(), What: &ententev1.RevokeAuthorityRequest_Anchor{Anchor: anchor},
	}
}
