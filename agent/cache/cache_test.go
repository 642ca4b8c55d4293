package cache_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/agent/cache"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// issuer signs SVIDs that last an hour.
type issuer struct {
	t   *testing.T
	key *ecdsa.PrivateKey
	ids map[string]string // SPIFFE IDs by entries

	mu        sync.Mutex
	err       error
	authority string
	signed    map[string]int
	tokens    int
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &issuer{t: t, key: key, ids: map[string]string{}, authority: "a", signed: map[string]int{}}
}

func (i *issuer) set(err error, authority string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err, i.authority = err, authority
}

func (i *issuer) issued() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tokens
}

func (i *issuer) count(id string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.signed[id]
}

func (i *issuer) IssueX509SVIDs(
	_ context.Context, requests []*ententev1.EntryX509Request,
) (out []*ententev1.X509SVIDResult, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return nil, i.err
	}
	for _, r := range requests {
		i.signed[r.GetEntryId()]++
		id, ok := i.ids[r.GetEntryId()]
		if !ok {
			out = append(out, &ententev1.X509SVIDResult{Result: &ententev1.X509SVIDResult_Failure{
				Failure: &ententev1.IssueFailure{Code: int32(codes.PermissionDenied), Message: "no such entry"},
			}})
			continue
		}
		csr, err := x509.ParseCertificateRequest(r.GetCsr())
		require.NoError(i.t, err)
		uri, err := url.Parse(id)
		require.NoError(i.t, err)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i.signed[r.GetEntryId()])), NotBefore: time.Now(),
			NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
			BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, csr.PublicKey, i.key)
		require.NoError(i.t, err)
		out = append(out, &ententev1.X509SVIDResult{Result: &ententev1.X509SVIDResult_Svid{
			Svid: &ententev1.IssueX509SVIDResponse{Certificates: [][]byte{der}, AuthorityId: i.authority},
		}})
	}
	return out, nil
}

func (i *issuer) IssueJWTSVID(context.Context, string, []string) (*ententev1.IssueJWTSVIDResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return nil, i.err
	}
	i.tokens++
	return &ententev1.IssueJWTSVIDResponse{
		Token: string(rune('a' + i.tokens - 1)), ExpireTime: timestamppb.New(time.Now().Add(10 * time.Minute)),
		AuthorityId: i.authority,
	}, nil
}

func entryOf(i *issuer, id, spiffeID, etag string) *ententev1.Entry {
	i.ids[id] = spiffeID
	return &ententev1.Entry{Id: id, SpiffeId: spiffeID, Etag: etag, Selectors: []string{"unix:uid:1"}}
}

// running runs a cache in a bubble of synctest.
func running(t *testing.T, i *issuer) (c *cache.Cache, end func()) {
	t.Helper()
	c = cache.New(i, hclog.NewNullLogger())
	own, _, err := bundle.Parse(spiffeid.RequireTrustDomainFromString("eu.example.org"), []byte(`{"keys":[]}`))
	require.NoError(t, err)
	c.SetBundles([]*bundle.Bundle{own})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return c, func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}
}

func serial(t *testing.T, c *cache.Cache) int64 {
	t.Helper()
	s, ok := c.Of([]string{"unix:uid:1"})
	require.True(t, ok)
	require.Len(t, s.Identities, 1)
	return s.Identities[0].SVID.Certificates[0].SerialNumber.Int64()
}

func TestSVIDsAreReadyAndRenewed(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		c, end := running(t, i)
		defer end()
		_, known := c.Of([]string{"unix:uid:1"})
		require.False(t, known, "the entries have not arrived")
		e := entryOf(i, "web", "spiffe://eu.example.org/web", "1")
		c.SetEntries(map[string]*ententev1.Entry{"web": e})
		synctest.Wait()
		require.EqualValues(t, 1, serial(t, c))
		s, _ := c.Of([]string{"unix:uid:2"})
		require.False(t, s.Registered)

		time.Sleep(29 * time.Minute)
		synctest.Wait()
		require.EqualValues(t, 1, serial(t, c))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.EqualValues(t, 2, serial(t, c), "at half of its life")

		c.SetDistrusted(map[string]bool{"a": true})
		synctest.Wait()
		require.GreaterOrEqual(t, i.count("web"), 3, "at once")
		i.set(nil, "b")
		time.Sleep(time.Minute)
		synctest.Wait()
		signed := i.count("web")
		time.Sleep(time.Minute)
		require.Equal(t, signed, i.count("web"), "the new authority is trusted")

		changed := entryOf(i, "web", "spiffe://eu.example.org/web", "2")
		was := c.Changed()
		c.SetEntries(map[string]*ententev1.Entry{"web": changed})
		synctest.Wait()
		<-was
		require.EqualValues(t, signed+1, serial(t, c), "the entry has changed")
		c.SetEntries(map[string]*ententev1.Entry{})
		s, _ = c.Of([]string{"unix:uid:1"})
		require.False(t, s.Registered)
	})
}

func TestOutageKeepsWhatIsValid(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		c, end := running(t, i)
		defer end()
		e := entryOf(i, "web", "spiffe://eu.example.org/web", "1")
		c.SetEntries(map[string]*ententev1.Entry{"web": e})
		synctest.Wait()
		token, err := c.JWTSVID(t.Context(), e, []string{"b", "a"})
		require.NoError(t, err)
		again, err := c.JWTSVID(t.Context(), e, []string{"a", "b"})
		require.NoError(t, err)
		require.Equal(t, token, again)

		i.set(errors.New("down"), "a")
		time.Sleep(7 * time.Minute)
		again, err = c.JWTSVID(t.Context(), e, []string{"a", "b"})
		require.NoError(t, err, "it is past its half, and valid")
		require.Equal(t, token, again)
		time.Sleep(50 * time.Minute)
		require.EqualValues(t, 1, serial(t, c))
		_, err = c.JWTSVID(t.Context(), e, []string{"a", "b"})
		require.EqualError(t, err, "down")
		time.Sleep(10 * time.Minute)
		s, _ := c.Of([]string{"unix:uid:1"})
		require.True(t, s.Registered)
		require.Empty(t, s.Identities, "an expired SVID is not handed out")
		i.set(nil, "a")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Greater(t, serial(t, c), int64(1))
	})
}

func TestOneEntryDoesNotHoldUpOthers(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		c, end := running(t, i)
		defer end()
		refused := entryOf(i, "db", "spiffe://eu.example.org/db", "1")
		delete(i.ids, "db")
		c.SetEntries(map[string]*ententev1.Entry{
			"db": refused, "web": entryOf(i, "web", "spiffe://eu.example.org/web", "1"),
		})
		synctest.Wait()
		require.EqualValues(t, 1, serial(t, c))
		time.Sleep(10 * time.Minute)
		require.Less(t, i.count("db"), 40, "attempts are apart")
		require.Equal(t, 1, i.count("web"))
		entries, svids, _ := c.Counts()
		require.Equal(t, 2, entries)
		require.Equal(t, 1, svids)
	})
}

// TestTokensOfOneEntryLeaveThoseOfOthers has one workload request a token for a new audience each time: it has its
// share, another one has its own, and what is kept for another one stays.
func TestTokensOfOneEntryLeaveThoseOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		c := cache.New(i, hclog.NewNullLogger())
		entries := map[string]*ententev1.Entry{}
		for n := range 10 {
			id := fmt.Sprint("e", n)
			entries[id] = &ententev1.Entry{Id: id, SpiffeId: "spiffe://eu.example.org/" + id, Selectors: []string{"a"}}
		}
		c.SetEntries(entries)
		request := func(id, audience string) error {
			_, err := c.JWTSVID(t.Context(), entries[id], []string{audience})
			return err
		}
		flood := func(id string) (signed int) {
			for {
				if err := request(id, fmt.Sprint("audience ", signed)); err != nil {
					require.Equal(t, codes.ResourceExhausted, status.Code(err), err)
					require.ErrorContains(t, err, "new JWT-SVIDs a second are requested for "+entries[id].GetSpiffeId())
					return signed
				}
				signed++
			}
		}
		require.NoError(t, request("e9", "kept"))
		require.Equal(t, 200, flood("e0"))
		require.NoError(t, request("e1", "another"))
		before := i.issued()
		for range 10 { // the first workload goes on, within its rate, until its tokens give way to each other
			time.Sleep(4 * time.Second)
			for n := range 200 {
				require.NoError(t, request("e0", fmt.Sprint("later ", time.Now(), n)))
			}
		}
		require.Equal(t, before+2000, i.issued())
		require.NoError(t, request("e9", "kept"))
		require.Equal(t, before+2000, i.issued(), "the token of another entry was kept")

		// All together have half of what a member signs for the agent.
		time.Sleep(time.Minute)
		before = i.issued()
		for n := range 9 {
			flood(fmt.Sprint("e", n))
		}
		require.Equal(t, before+1000, i.issued())
	})
}
