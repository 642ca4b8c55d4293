package hub

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// TestStreamedMapIsChecked: while a stream keeps a map up to date, its endpoint is only checked, and the map is read if
// the endpoint does not support that, once a day, and if an operator requests it.
func TestStreamedMapIsChecked(t *testing.T) {
	s, ap := newSpoke(t, "ap.example.org"), federationtest.NewAuthority(t, "ap.example.org")
	document, heads := mapOf(t, ap.Bundle(t, 1)), true
	s.endpoint.Handle(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && !heads {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		_, _ = w.Write(document)
	})
	require.Equal(t, relationship.ResultStored, s.read(t.Context(), t, nil))
	require.Equal(t, relationship.ResultUnchanged, s.read(t.Context(), t, nil), "no stream keeps it up to date")

	s.streamed = true
	require.Equal(t, relationship.ResultConfirmed, s.read(t.Context(), t, nil))
	require.Equal(
		t,
		relationship.ResultUnchanged,
		s.read(t.Context(), t, fetch.Requested()),
		"an operator requested it",
	)
	heads = false
	require.Equal(t, relationship.ResultUnchanged, s.read(t.Context(), t, nil), "the endpoint answers to GET alone")
	heads = true
	s.readings.compared("hub.example.org", time.Now().Add(-compareInterval))
	require.Equal(t, relationship.ResultUnchanged, s.read(t.Context(), t, nil))
	require.Equal(t, relationship.ResultConfirmed, s.read(t.Context(), t, nil))
	s.Forget("hub.example.org")
	require.Equal(t, relationship.ResultUnchanged, s.read(t.Context(), t, nil), "this member has never compared it")
	require.Equal(t, relationship.ResultConfirmed, s.read(t.Context(), t, nil))
	s.ForgetAll()
	require.Equal(
		t,
		relationship.ResultUnchanged,
		s.read(t.Context(), t, nil),
		"the tables were read again, as after a restore",
	)
}

func TestComparedLately(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		at   time.Time
		want bool
	}{
		"never":                  {time.Time{}, false},
		"just now":               {now, true},
		"within the day":         {now.Add(time.Second - compareInterval), true},
		"a day ago":              {now.Add(-compareInterval), false},
		"the clock was set back": {now.Add(time.Second), false},
	} {
		require.Equal(t, c.want, comparedLately(c.at, now), name)
	}
}

// TestHubEndsWhileItsMapIsWritten: nothing is written, and the result is a change of mind rather than a failure.
func TestHubEndsWhileItsMapIsWritten(t *testing.T) {
	s, a := newSpoke(t, ".example.org"), federationtest.NewAuthority(t, "a.example.org")
	view, b := s.store.View(), s.basis(t)
	read := func() *reading {
		out, err := s.config.readingOfAll(view, "hub.example.org", b.Rel.Hub)
		require.NoError(t, err)
		entry, err := bundle.NewMapEntry(a.Bundle(t, 5))
		require.NoError(t, err)
		require.NoError(t, out.add(a.TrustDomain, entry.Document))
		require.Len(t, out.changes, 1)
		return out
	}
	s.change(t, func(row *statev1.Relationship) { row.Suspended = true })
	require.ErrorIs(t, s.writer.write(t.Context(), read(), b), relationship.ErrSuperseded)
	_, err := s.store.Update(
		t.Context(),
		func(tx *raftstore.Tx) error { return relationship.Relationships.Delete(tx, "hub.example.org") },
	)
	require.NoError(t, err)
	require.ErrorIs(t, s.writer.write(t.Context(), read(), b), relationship.ErrSuperseded)
	for row, err := range relationship.HubBundles.All(s.store.View(), "") {
		require.NoError(t, err)
		require.Fail(t, "an attestation is stored", row.Key)
	}
}

// TestWriteChecksWhatLedToIt: a change is written only if the row and the relationship are as they were read, and only
// if it can be audited.
func TestWriteChecksWhatLedToIt(t *testing.T) {
	s, a := newSpoke(t, ".example.org"), federationtest.NewAuthority(t, "a.example.org")
	b := s.basis(t)
	put := change{td: "a.example.org", document: a.Bundle(t, 5).Marshal()}
	done, err := s.writer.writeBatch(t.Context(), "hub.example.org", b, []change{put})
	require.NoError(t, err)
	require.True(t, done)
	put.document = a.Bundle(t, 4).Marshal() // of a reading that began before
	done, err = s.writer.writeBatch(
		t.Context(),
		"hub.example.org",
		b,
		[]change{put, {td: "a.example.org", known: 1, withdrawn: true}},
	)
	require.NoError(t, err)
	require.False(t, done, "the row has changed")
	require.EqualValues(t, 5, s.sequence(t, "a.example.org"))
	require.Equal(t, []string{
		"accept bundle a.example.org: begun", "accept bundle a.example.org: done",
		"accept bundle a.example.org: begun", "withdraw bundle a.example.org: begun",
		"accept bundle a.example.org: failed", "withdraw bundle a.example.org: failed",
	}, s.ledger.Decisions())

	s.change(t, func(row *statev1.Relationship) {
		row.Hub = &statev1.RelationshipHub{Include: []string{"b.example.org"}}
	})
	c := change{td: "c.example.org", document: federationtest.NewAuthority(t, "c.example.org").Bundle(t, 1).Marshal()}
	_, err = s.writer.writeBatch(t.Context(), "hub.example.org", b, []change{c})
	require.ErrorIs(t, err, relationship.ErrSuperseded, "an operator has decided otherwise")

	s.ledger.Fill(true)
	_, err = s.writer.writeBatch(t.Context(), "hub.example.org", b, []change{put})
	require.ErrorIs(t, err, audit.ErrUnaudited)
	s.ledger.Fill(false)
	require.EqualValues(t, 0, s.sequence(t, "c.example.org"))
}

// TestMemoryOfMap: a map of more than 20 MiB, with more changes than are held at once, never takes 16 MiB of memory
// while it is read.
func TestMemoryOfMap(t *testing.T) {
	const domains, whole, most = 7000, 1500, 16 << 20
	s := newSpoke(t, ".test")
	hub := s.hub
	keys := map[string]crypto.PublicKey{}
	for i := range 20 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		keys[fmt.Sprint("key-", i)] = key.Public()
	}
	one, err := bundle.New(federationtest.NewAuthority(t, "d.test").TrustDomain, bundle.Content{JWTAuthorities: keys})
	require.NoError(t, err)
	vouched, err := bundle.NewMapEntry(one)
	require.NoError(t, err)
	padded := fmt.Sprintf(`{"keys":[],"x":%q}`, strings.Repeat("x", 3<<10)) // of no meaning, and so read fast
	require.Less(t, domains*(max(len(vouched.Document), len(padded))+32), bundle.MaxMapBytes)

	var held uint64
	s.endpoint.Handle(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/bundles" {
			_, _ = w.Write(hub.Bundle(t, 1).Marshal())
			return
		}
		before := live()
		_, _ = w.Write([]byte(`{"trust_domains":{`))
		for i := range domains {
			if i > 0 {
				_, _ = w.Write([]byte(","))
			}
			document := padded
			if i < whole {
				document = string(vouched.Document)
			}
			_, _ = fmt.Fprintf(w, `"d%05d.test":%s`, i, document)
			if i%1000 == 999 {
				if now := live(); now > before {
					held = max(held, now-before)
				}
			}
		}
		_, _ = w.Write([]byte("}}"))
	})
	_, _, err = s.readOnce(t.Context(), "hub.example.org", s.basis(t), nil)
	require.ErrorIs(t, err, errIncomplete, "further readings store the rest")
	t.Logf("at most %d KiB were held", held>>10)
	require.NotZero(t, held)
	require.Less(t, held, uint64(most))
	rows, err := relationship.HubBundles.List(s.store.View(), "")
	require.NoError(t, err)
	require.Greater(t, len(rows), 500)
}

// live returns the bytes that the last garbage collection found in use. What is allocated since does not count, however
// busy the machine is.
func live() uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
