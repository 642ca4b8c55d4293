package issue

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

// workload is the name of a workload, and workloadRequest a request for its X509-SVID.
const workload = "spiffe://eu.example.org/web/1"

func workloadRequest(t *testing.T) svid.X509Request {
	t.Helper()
	key, err := keys.Generate()
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	r, err := svid.ParseX509Request(&ententev1.IssueX509SVIDRequest{SpiffeId: workload, Csr: csr})
	require.NoError(t, err)
	return r
}

// auditLog is an audit log in memory.
type auditLog struct {
	mu     sync.Mutex
	events []audit.Event
	refuse bool
}

func (l *auditLog) Record(e audit.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse {
		return errors.New("the disk is full")
	}
	l.events = append(l.events, e)
	return nil
}

func (l *auditLog) last() audit.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)[len(l.events)-1]
}

// contact is always in contact, unless a test sets another one.
type contact struct {
	last    func() time.Time // nil: now
	suspect bool             // the clock is not plausible
}

func (c contact) LastContact() time.Time {
	if c.last != nil {
		return c.last()
	}
	return time.Now()
}
func (c contact) ClockSane() bool      { return !c.suspect }
func (c contact) ClockPlausible() bool { return !c.suspect }

// certificateAuthority returns a CA of the home domain.
func certificateAuthority(t *testing.T, key crypto.Signer, now time.Time) *x509.Certificate {
	t.Helper()
	template, err := svid.CATemplate(home, key.Public(), "root", now, now.Add(plan.DefaultCATTL), 0)
	require.NoError(t, err)
	ca, err := svid.SignCertificate(template, template, key.Public(), key, svid.LintCA(home))
	require.NoError(t, err)
	return ca
}

// harness is an issuer with one active authority of each kind, on a clock that the test sets.
type harness struct {
	*Issuer
	audit  auditLog
	domain *Domain
	now    time.Time
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{now: time.Now().Truncate(time.Second)}
	linter, err := NewLinter(-1, hclog.NewNullLogger(), nil)
	require.NoError(t, err)
	store := keys.NewMemory()
	h.Issuer, err = New(Config{
		Store: raftstoretest.New(t), Member: "eu-1", Home: home, Keys: store, SigningGrace: plan.DefaultSigningGrace,
		Contact: contact{}, Audit: &h.audit, Rate: -1, Burst: 1, Linter: linter, Changed: &loop.Signal{},
		Now: func() time.Time { return h.now }, Log: hclog.NewNullLogger(),
	})
	require.NoError(t, err)
	h.domain = &Domain{
		settings: plan.Settings{X509SVIDTTL: plan.DefaultX509SVIDTTL, JWTSVIDTTL: plan.DefaultJWTSVIDTTL},
		signers:  map[plan.Kind]*signer{}, document: []byte("{}"),
	}
	for _, kind := range plan.Kinds {
		row := &statev1.Authority{
			Id: fmt.Sprint(kind), TrustDomain: home.Name(), Kind: statev1.AuthorityKind(kind),
			NotAfter: timestamppb.New(h.now.Add(plan.DefaultCATTL)),
		}
		key, err := store.Create(t.Context(), row.GetId())
		require.NoError(t, err)
		row.Chain = [][]byte{certificateAuthority(t, key, h.now).Raw}
		h.domain.signers[kind], err = newSigner(store, home, row)
		require.NoError(t, err)
	}
	return h
}
