package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/prototext"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/damagetest"
	"github.com/ententehq/entente/internal/shorttest"
)

// had is what a member has that a damaged file must not change.
type had struct {
	services, identity string
	sequence           uint64
	document           string
}

// whatItHas reads it from a member.
func whatItHas(ctx context.Context, p *process) (had, error) {
	services, err := p.socket().Routing().ListServices(ctx, &ententev1.ListServicesRequest{})
	if err != nil {
		return had{}, err
	}
	var out had
	for _, s := range services.GetServices() {
		service, err := p.socket().Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: s.GetName()})
		if err != nil {
			return had{}, err
		}
		service.Revision = 0 // that of the answer
		out.services += prototext.Format(service)
	}
	members, err := p.socket().Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	if err != nil {
		return had{}, err
	}
	out.identity = members.GetMembers()[0].GetIdentity()
	if out.document, err = p.document("/"); err != nil {
		return had{}, err
	}
	out.sequence, err = sequenceOf(out.document)
	return out, err
}

// TestDamagedFolder damages one file of a member's data folder at a time, whichever it is: the log, the identity,
// signing keys, the audit log. The member has what it had, or refuses in one line that names the file and a remedy.
// Several members are damaged side by side, each with a folder of its own: a start waits more than it computes.
func TestDamagedFolder(t *testing.T) {
	const perMember, maxMembers = 50, 12
	damages := damagetest.Flips(t, 12)
	members := min(max(damages/perMember, 1), maxMembers)
	var refused, served atomic.Int32
	var running sync.WaitGroup
	for first := range members {
		running.Go(func() {
			t.Run(fmt.Sprintf("member %d of %d", first+1, members), func(t *testing.T) {
				d := newDamaged(t)
				for seed := first; seed < damages; seed += members {
					if d.judge(seed) {
						served.Add(1)
					} else {
						refused.Add(1)
					}
				}
			})
		})
	}
	running.Wait()
	t.Logf("%d served what they had, %d refused", served.Load(), refused.Load())
}

// damaged is a member whose data folder is damaged again and again, from the same state.
type damaged struct {
	t      *testing.T
	domain string
	member *process
	// data is the folder of the member, and whole a copy of it from before any damage.
	data, whole string
	want        had
}

func newDamaged(t *testing.T) *damaged {
	shorttest.Skip(t, "runs members as processes")
	c := &cluster{t: t, name: "eu", domain: "eu.example.org", extra: quick, root: inMemory()}
	c.form(1)
	p := c.members[0]
	everySigner(t, c)
	for n := range 20 {
		require.NoError(t, register(t.Context(), p, c.domain, fmt.Sprint("web-", n%3), n))
	}
	want, err := whatItHas(t.Context(), p)
	require.NoError(t, err)
	p.stop()
	hastenElections(t, p)
	d := &damaged{
		t: t, domain: c.domain, member: p, want: want,
		data: filepath.Join(p.dir, "data"), whole: filepath.Join(p.dir, "whole"),
	}
	copyData(t, d.data, d.whole)
	return d
}

// inMemory returns a folder whose files are in memory, or "". Elsewhere a start mostly waits for the disk, and
// what is damaged here has been written long ago.
func inMemory() string {
	const folder = "/dev/shm"
	if unix.Access(folder, unix.W_OK) != nil {
		return ""
	}
	return folder
}

// hastenElections lets a member without others lead as soon as its configuration allows.
func hastenElections(t *testing.T, p *process) {
	file := filepath.Join(p.dir, "entente.hcl")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), `"500ms"`))
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), `"500ms"`, `"50ms"`)), 0o600))
}

// judge starts the member with one damage, and reports whether it serves.
func (d *damaged) judge(seed int) (serves bool) {
	t, p := d.t, d.member
	require.NoError(t, os.RemoveAll(d.data))
	copyData(t, d.whole, d.data)
	what := damagetest.Damage(t, rand.New(rand.NewPCG(uint64(seed), 9)), d.data, nil)
	name := fmt.Sprintf("seed %d: %s", seed, what)
	from := len(p.logs())
	p.run()
	var got had
	eventually(t, "it serves or refuses, "+name, func() error {
		if !p.isRunning() {
			return nil
		}
		err := errors.Join(p.ready(), p.readyTo("/ready/write"))
		if err == nil {
			call, cancel := context.WithTimeout(t.Context(), callLimit)
			defer cancel()
			got, err = whatItHas(call, p)
		}
		return err
	})
	if serves = p.isRunning(); serves {
		require.Equal(t, d.want.services, got.services, name)
		require.Equal(t, d.want.identity, got.identity, name)
		require.GreaterOrEqual(t, got.sequence, d.want.sequence, name)
		if got.sequence == d.want.sequence {
			require.Equal(t, d.want.document, got.document, name)
		}
		verifiesItself(t.Context(), t, p, d.domain, name)
		p.kill()
	}
	said := p.logs()[from:]
	for _, sign := range []string{"panic:", "goroutine ", "fatal error:"} {
		require.NotContains(t, said, sign, name)
	}
	if !strings.Contains(said, "started: ") {
		lines := strings.Split(strings.TrimSpace(said), "\n")
		last := lines[len(lines)-1]
		require.Contains(t, last, "entente: ", name)
		require.Regexp(t, "entente cluster repair|restore it|delete|remove", last, name)
	}
	if strings.Contains(what, "audit.log") && !strings.Contains(said, "the audit log is damaged") {
		out, err := exec.Command(binary, "audit", "verify", filepath.Join(d.data, "audit.log")).CombinedOutput()
		require.Error(t, err, "%s: nobody noticed: %s", name, out)
	}
	return serves
}

// verifiesItself checks that an SVID which a member issues verifies by the bundle that it publishes.
func verifiesItself(ctx context.Context, t *testing.T, p *process, domain, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(cryptorand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	svid, err := p.socket().SVIDs().IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{
		SpiffeId: "spiffe://" + domain + "/load", Csr: csr,
	})
	if err != nil {
		return // it may have to prepare another authority first
	}
	document, err := p.document("/")
	if err != nil {
		return
	}
	require.True(t, json.Valid([]byte(document)), name)
	bundle, err := spiffebundle.Parse(spiffeid.RequireTrustDomainFromString(domain), []byte(document))
	require.NoError(t, err, name)
	chain, err := x509.ParseCertificates(slices.Concat(svid.GetCertificates()...))
	require.NoError(t, err, name)
	_, _, err = x509svid.Verify(chain, bundle)
	require.NoError(t, err, name)
}
