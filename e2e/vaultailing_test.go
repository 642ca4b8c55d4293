package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

var ailingDomain = spiffeid.RequireTrustDomainFromString("eu.example.org")

// ailing is the store, the authorities and the upstream of a member as node connects them, below a real Vault that a
// test breaks, and on a clock that the test sets: the life of an authority passes in a moment. Vault's own clock is
// that of the machine.
type ailing struct {
	t       *testing.T
	v       *vaulttest.Vault
	mount   string
	proxy   *vaulttest.Proxy
	store   *raftstore.Store
	manager *authority.Manager
	metrics *prometheus.Registry
	log     *lockedLog
	// folder has the ca.pem, role_id and secret_id that the member reads whenever it needs them; auth is the AppRole's
	// path.
	folder, auth string

	// issued counts the SVIDs that hold was given.
	issued atomic.Int64

	mu    sync.Mutex
	ahead time.Duration
	ticks int
}

type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// lines counts the lines that have all parts.
func (l *lockedLog) lines(parts ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			n++
		}
	}
	return n
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// alone is a member that is in contact with itself, writes no audit log and has no peers.
type alone struct{ now func() time.Time }

func (a alone) LastContact() time.Time { return a.now() }
func (alone) ClockSane() bool          { return true }
func (alone) ClockPlausible() bool     { return true }
func (alone) Record(audit.Event) error { return nil }

// below starts a member below a mount of its own, behind a proxy or not, with its clock ahead of Vault's.
func below(
	t *testing.T, v *vaulttest.Vault, proxied bool, ahead time.Duration, longest string,
	adjust ...func(*vaultca.Config, *authority.Config),
) *ailing {
	t.Helper()
	a := &ailing{
		t:       t,
		v:       v,
		mount:   v.PKI(t),
		folder:  t.TempDir(),
		store:   raftstoretest.New(t),
		metrics: prometheus.NewRegistry(),
		log:     &lockedLog{},
		ahead:   ahead,
	}
	if longest != "" {
		maxLease(longest)(a)
	}
	address, ca := v.Address, v.CAFile
	if proxied {
		a.proxy = vaulttest.NewProxy(t, v)
		address, ca = a.proxy.Address, a.proxy.CAFile
	}
	a.trust(ca)
	rules, err := vaultca.Policies([]vaultca.PolicyFor{{Mount: a.mount, TrustDomain: ailingDomain}}, nil)
	require.NoError(t, err)
	auth, roleID, secretID := v.AppRole(t, v.Policy(t, rules), nil)
	a.auth = auth
	a.write("secret_id", secretID)
	log := hclog.New(&hclog.LoggerOptions{Output: a.log, Level: hclog.Info})
	vaultConfig := vaultca.Config{
		Config: vault.Config{
			Address: address, CAFile: filepath.Join(a.folder, "ca.pem"),
			Auth: vault.AppRole{
				Mount:  auth,
				RoleID: func() (string, error) { return roleID, nil },
				SecretID: func() (string, error) {
					raw, err := os.ReadFile(filepath.Join(a.folder, "secret_id"))
					return string(raw), err
				},
			},
			Logger: log.Named("vault"), Registerer: a.metrics, Now: a.now,
			Timeout: time.Second, // of a Vault that hangs; all else is as it is in a member
		},
		Mounts:      map[spiffeid.TrustDomain]vaultca.Mount{ailingDomain: {Path: a.mount}},
		LongestSVID: func(spiffeid.TrustDomain) time.Duration { return 10 * time.Minute },
	}
	own := authority.Config{
		Store: a.store, Member: a.store.MemberID(), Home: ailingDomain, KeyDir: filepath.Join(a.folder, "keys"),
		Defaults: plan.Settings{
			CATTL:       24 * time.Hour,
			X509SVIDTTL: 10 * time.Minute,
			JWTSVIDTTL:  10 * time.Minute,
			RefreshHint: time.Minute,
		},
		Contact: alone{a.now}, Audit: alone{}, IssueRate: -1,
		Conn: func(id string) (grpc.ClientConnInterface, error) {
			return nil, fmt.Errorf("there is no member %s", id)
		},
		Members: func(raftstore.Reader) ([]string, error) { return []string{a.store.MemberID()}, nil },
		Alive:   func(raftstore.Reader) ([]string, error) { return []string{a.store.MemberID()}, nil },
		Logger:  log.Named("authority"), Registerer: a.metrics, Now: a.now,
	}
	for _, change := range adjust {
		change(&vaultConfig, &own)
	}
	upstream, err := vaultca.New(vaultConfig)
	require.NoError(t, err)
	own.Upstream = upstream
	a.manager, err = authority.New(own)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{upstream.Run, a.manager.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("a part of the member ended: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if t.Failed() {
			t.Logf("log of the member:\n%s", a.log)
		}
	})
	return a
}

func (a *ailing) write(name, text string) {
	require.NoError(a.t, os.WriteFile(filepath.Join(a.folder, name), []byte(text), 0o600))
}

// trust has the member trust what a file holds, at its next connection.
func (a *ailing) trust(file string) {
	raw, err := os.ReadFile(file)
	require.NoError(a.t, err)
	a.write("ca.pem", string(raw))
}

func (a *ailing) now() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Add(a.ahead)
}

// pass has time pass for the member, and changes a table that it follows, so that its loops look at the clock again.
func (a *ailing) pass(d time.Duration) {
	a.t.Helper()
	a.mu.Lock()
	a.ahead += d
	a.ticks++
	tick := fmt.Sprint(a.ticks)
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(a.t.Context(), waitLimit)
	defer cancel()
	_, err := a.store.Update(ctx, func(tx *raftstore.Tx) error {
		return membership.Members.Put(tx, "tick", &statev1.Member{Id: tick})
	})
	require.NoError(a.t, err)
}

// passUntil has time pass until a moment of the member's clock.
func (a *ailing) passUntil(at time.Time) {
	a.t.Helper()
	a.pass(at.Sub(a.now()))
}

// metric is the sum of the samples of a metric that have these labels; 0 where there are none.
func (a *ailing) metric(name string, labels map[string]string) (sum float64) {
	a.t.Helper()
	families, err := a.metrics.Gather()
	require.NoError(a.t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			has := map[string]string{}
			for _, label := range m.GetLabel() {
				if _, asked := labels[label.GetName()]; asked {
					has[label.GetName()] = label.GetValue()
				}
			}
			if family.GetName() == name && maps.Equal(has, labels) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// measures waits until a metric has a value.
func (a *ailing) measures(value float64, name string, labels map[string]string) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("%s%v is %v", name, labels, value), func() error {
		if is := a.metric(name, labels); is != value {
			return fmt.Errorf("it is %v", is)
		}
		return nil
	})
}

func (a *ailing) alarm(kind, name string, value float64) {
	a.t.Helper()
	a.measures(value, "entente_authority_alarm", map[string]string{"alarm": name, "kind": kind})
}

// logged waits until a line with all parts is in the log.
func (a *ailing) logged(parts ...string) {
	a.t.Helper()
	eventually(a.t, fmt.Sprintf("the log has %q", parts), func() error {
		if a.log.lines(parts...) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// newest waits until the member's newest X.509 authority is another than one before, and in a state.
func (a *ailing) newest(before string, state ententev1.AuthorityState) *ententev1.Authority {
	a.t.Helper()
	var found *ententev1.Authority
	eventually(a.t, fmt.Sprintf("there is another authority than %q in %s", before, state), func() error {
		list, err := a.manager.AuthorityService().ListAuthorities(a.t.Context(), &ententev1.ListAuthoritiesRequest{})
		if err != nil {
			return err
		}
		for _, one := range list.GetAuthorities() {
			if one.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 && one.GetState() == state &&
				one.GetId() != before {
				found = one
				return nil
			}
		}
		return errors.New("not yet")
	})
	return found
}

// issue issues an SVID of the member.
func (a *ailing) issue(ctx context.Context) (w workload, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return w, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return w, err
	}
	id := spiffeid.RequireFromPath(ailingDomain, "/web")
	answer, err := a.manager.SVIDService().
		IssueX509SVID(access.WithCaller(ctx, access.SVIDCaller(id)), &ententev1.IssueX509SVIDRequest{
			SpiffeId: id.String(), Csr: csr,
		})
	if err != nil {
		return w, err
	}
	w.svid = &x509svid.SVID{ID: id, PrivateKey: key}
	for _, der := range answer.GetCertificates() {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return w, err
		}
		w.svid.Certificates = append(w.svid.Certificates, c)
	}
	w.bundle, err = spiffebundle.Parse(ailingDomain, answer.GetBundle())
	return w, err
}

// keepIssuing issues one SVID after the other, and verifies each by the bundle of the previous one, until the returned
// function is called. That function fails the test if an SVID was refused or did not verify. Verification uses the
// member's clock, or Vault's.
func (a *ailing) keepIssuing(byVault bool) (served func()) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(a.t.Context())
	var wrong []string
	ended := make(chan struct{})
	last, err := a.issue(ctx)
	require.NoError(a.t, err)
	tick := time.NewTicker(20 * time.Millisecond)
	go func() {
		defer close(ended)
		defer tick.Stop()
		for ctx.Err() == nil {
			next, err := a.issue(ctx)
			if err == nil {
				at := next.svid.Certificates[0].NotBefore.Add(20 * time.Second) // the member backdates by half of that
				if byVault {
					at = time.Now()
				}
				_, _, err = x509svid.Verify(next.svid.Certificates, last.bundle, x509svid.WithTime(at))
				last = next
			}
			if err != nil && ctx.Err() == nil && len(wrong) < 10 {
				wrong = append(wrong, fmt.Sprintf("at %s: %v", a.now(), err))
			}
			a.issued.Add(1)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-ended })
	a.t.Cleanup(stop)
	return func() {
		a.t.Helper()
		a.others()
		stop()
		require.Empty(a.t, wrong)
	}
}

// others waits until hold was given two more SVIDs, the second of them with the bundle of now.
func (a *ailing) others() {
	a.t.Helper()
	before := a.issued.Load()
	eventually(a.t, "SVIDs are requested now too", func() error {
		if a.issued.Load() < before+2 {
			return errors.New("not yet")
		}
		return nil
	})
}
