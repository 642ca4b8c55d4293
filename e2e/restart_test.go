package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// sequence fetches the sequence of the home bundle from a member's bundle endpoint.
func (p *process) sequence() (uint64, error) {
	text, err := p.document("/")
	if err != nil {
		return 0, err
	}
	return sequenceOf(text)
}

// sequenceOf returns the sequence of a bundle document.
func sequenceOf(text string) (uint64, error) {
	var document struct {
		Sequence uint64 `json:"spiffe_sequence"`
	}
	err := json.Unmarshal([]byte(text), &document)
	return document.Sequence, err
}

// observer reads the bundle endpoint and /ready of a member all the time, over restarts.
type observer struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	lowest   uint64 // the first one
	highest  uint64
	answers  int
	problems []string
}

func observe(t *testing.T, p *process) *observer {
	ctx, stop := context.WithCancel(t.Context())
	o := &observer{stop: stop}
	o.done.Go(func() {
		for ctx.Err() == nil {
			// Ready before the fetch: a member that is ready may be killed before it answers, but does not refuse.
			life := p.ended()
			ready := p.ready() == nil
			sequence, err := p.sequence()
			ready = ready && p.ended() == life // it was not started again in between
			o.mu.Lock()
			switch {
			case err == nil && sequence < o.highest:
				o.problems = append(o.problems, fmt.Sprintf("sequence %d after %d", sequence, o.highest))
			case err == nil:
				if o.answers == 0 {
					o.lowest = sequence
				}
				o.highest = sequence
				o.answers++
			case ready && strings.HasPrefix(err.Error(), "503 "): // a URL can have 503 in its port
				o.problems = append(o.problems, "ready, and "+err.Error())
			}
			o.mu.Unlock()
		}
	})
	return o
}

// seen returns the highest sequence so far, and the number of answers.
func (o *observer) seen() (uint64, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.highest, o.answers
}

func (o *observer) end(t *testing.T) {
	o.stop()
	o.done.Wait()
	require.Empty(t, o.problems)
}

// A member that is killed again and again never serves an older bundle than it did before, and is not ready while it
// refuses. The cluster's bundle changes all the time.
func TestBundlesNeverGoBackOverRestarts(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	last := c.members[2]
	o := observe(t, last)
	for n := range 3 {
		before, _ := o.seen()
		changeBundle(t, c, n)
		eventually(t, "the member serves a newer bundle", func() error {
			if now, _ := o.seen(); now <= before {
				return fmt.Errorf("sequence %d", now)
			}
			return nil
		})
		last.kill()
		last.run()
		_, answers := o.seen()
		eventually(t, "the member serves again", func() error {
			if _, now := o.seen(); now <= answers {
				return fmt.Errorf("%d answers", now)
			}
			return nil
		})
	}
	o.end(t)
}

// changeBundle changes the bundle of the home domain, in its n-th way.
func changeBundle(t *testing.T, c *cluster, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	_, err := c.members[0].socket().Domains().UpdateDomain(ctx, &ententev1.UpdateDomainRequest{
		Domain: &ententev1.Domain{
			TrustDomain: c.domain, RefreshHint: durationpb.New(time.Duration(60+n) * time.Second),
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"refresh_hint"}},
	})
	require.NoError(t, err)
}

// A member that is started again without the others serves what it had: bundles, instances, grants and its own SVID. It
// marks each answer, writes nothing, and reports that it cannot.
func TestRestartWithoutTheOthers(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	last := c.members[0] // whose authority signs already
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	require.NoError(t, register(ctx, last, c.domain, "web", 1))
	require.Len(t, instances(t, last, "web"), 1)
	eventually(t, "the member has recorded its contact", func() error { return recordedContact(last) })
	for _, p := range c.others(last) {
		p.kill()
	}
	eventually(t, "the member has lost its leader", func() error { return withoutLeader(last) })
	// Nothing is committed any more, so that the bundle and the authorities stay as they are.
	before, err := last.document("/")
	require.NoError(t, err)
	authorities := staleAuthorities(t, last)
	last.kill()

	last.run()
	eventually(t, "the member is ready to be read", last.ready)
	after, err := last.document("/")
	require.NoError(t, err)
	require.Equal(t, before, after)
	var header metadata.MD
	hint, err := last.socket().Routing().GetHint(ctx, &ententev1.GetHintRequest{
		Service: "web", Locality: &ententev1.Locality{Region: "r", Zone: "z"},
	}, grpc.Header(&header))
	require.NoError(t, err)
	require.Equal(t, 1, offered(hint))
	require.Len(t, header.Get("entente-state"), 1)
	require.Regexp(t, `^as of revision \d+, no leader$`, header.Get("entente-state")[0])
	revision, unconfirmed := client.Unconfirmed(header)
	require.True(t, unconfirmed)
	require.Equal(t, fmt.Sprintf("as of revision %d, no leader", revision), header.Get("entente-state")[0])
	require.Len(t, staleAuthorities(t, last), len(authorities))
	require.NoError(t, withoutLeader(last))
	out := command(t, "bundle", "show", c.domain, "--socket", filepath.Join(last.dir, "data", "admin.sock"))
	require.Contains(t, out, "no leader")
	require.Equal(t, header.Get("entente-state")[0], endpointState(t, last))

	for _, p := range c.others(last) {
		p.run()
	}
	eventually(t, "the member is ready to write", func() error { return last.readyTo("/ready/write") })
	eventually(t, "a leader has confirmed the state", func() error {
		if mark := endpointState(t, last); mark != "" {
			return fmt.Errorf("the answers are marked %q", mark)
		}
		return nil
	})
}

// A member without its record waits for the others, and reports that. It does not report that a domain is unknown. It
// answers callers on its port too, by the SVID that it had, and serves none of them, whether or not they have a role
// still; a client that knows another member uses that one.
func TestUnknownIsNotNotFound(t *testing.T) {
	c := newCluster(t, "eu", 2, "")
	last := c.members[1]
	id := "spiffe://" + c.domain + "/reader"
	reader := &ententev1.Grant{SpiffeId: id, Role: ententev1.Role_ROLE_READER}
	_, err := c.members[0].socket().Access().GrantRole(t.Context(), &ententev1.GrantRoleRequest{Grant: reader})
	require.NoError(t, err)
	credentials := issue(t, c.members[0], id)
	caller := credentials.call(t, last, c.domain)
	list := func(with *client.Client) error {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		_, err := with.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{})
		return err
	}
	eventually(t, "the caller has its role at the member", func() error { return list(caller) })
	for _, p := range c.members {
		p.kill()
	}
	require.NoError(t, os.Remove(filepath.Join(last.dir, "data", "raft", "applied")))
	last.run()
	eventually(t, "the member reports that it is starting", func() error {
		err := last.ready()
		if err == nil || !strings.Contains(err.Error(), "state: starting: ") {
			return fmt.Errorf("it reports %w", err)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	_, err = last.socket().Domains().UpdateDomain(ctx, &ententev1.UpdateDomainRequest{})
	require.ErrorContains(t, err, "starting: ")
	require.ErrorIs(t, err, client.ErrStarting)
	require.ErrorIs(t, err, client.ErrUnavailable)
	_, err = last.socket().Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: c.domain})
	require.ErrorContains(t, err, "starting: ")
	eventually(t, "the caller is answered on the port", func() error {
		if err := list(caller); !errors.Is(err, client.ErrStarting) {
			return fmt.Errorf("the answer is %w", err)
		}
		return nil
	})
	_, err = last.document("/")
	require.ErrorContains(t, err, "503", "the bundle endpoint answers too, by its SVID")
	require.ErrorContains(t, err, "starting: ")

	first := c.members[0]
	first.run()
	last.waitReady()
	_, err = first.socket().Access().RevokeRole(ctx, &ententev1.RevokeRoleRequest{
		Role: reader.GetRole(), SpiffeId: id,
	})
	require.NoError(t, err)
	eventually(t, "the caller has lost its role at the member", func() error {
		if err := list(caller); !errors.Is(err, client.ErrDenied) {
			return fmt.Errorf("the answer is %w", err)
		}
		return nil
	})
	// It stays revoked over a restart without a leader: starting, then denied, and nothing in between.
	for _, p := range c.members {
		p.kill()
	}
	last.run()
	eventually(t, "the member is ready", func() error {
		if err := list(caller); err == nil {
			t.Error("a revoked caller was served")
		}
		return last.ready()
	})
	require.ErrorIs(t, list(caller), client.ErrDenied)
	first.run()
	first.waitReady()
}

// withoutLeader returns an error unless the member reports that it has no leader.
func withoutLeader(p *process) error {
	switch err := p.readyTo("/ready/write"); {
	case err == nil:
		return errors.New("it is ready to write")
	case !strings.Contains(err.Error(), "leader: no leader is known"):
		return err
	}
	return nil
}

// staleAuthorities lists the authorities as a member knows them, with a leader or without.
func staleAuthorities(t *testing.T, p *process) []*ententev1.Authority {
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	list, err := p.socket().Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{
		Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE},
	})
	require.NoError(t, err)
	return list.GetAuthorities()
}

func recordedContact(p *process) error {
	raw, err := os.ReadFile(filepath.Join(p.dir, "data", "raft", "applied"))
	if err != nil {
		return err
	}
	for _, slot := range []int{0, 512} {
		if string(raw[slot+24:slot+32]) != strings.Repeat("\x00", 8) {
			return nil
		}
	}
	return fmt.Errorf("there is none")
}

// endpointState returns what marks the answers of a member's bundle endpoint.
func endpointState(t *testing.T, p *process) string {
	reader := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // only a header is read
	}}
	answer, err := reader.Get("https://" + p.bundles + "/")
	require.NoError(t, err)
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	require.NoError(t, err)
	return answer.Header.Get("Entente-State")
}
