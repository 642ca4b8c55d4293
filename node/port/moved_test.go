package port_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// move stops the member and gives it an address that nobody knows. It does not run then.
func (m *member) move() {
	m.t.Helper()
	m.stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(m.t, err)
	require.NoError(m.t, l.Close())
	m.address = l.Addr().String()
}

// serving waits until the member serves and can write.
func (m *member) serving() {
	m.t.Helper()
	m.eventually("serves", m.store.Serving().Err)
	m.eventually("writes", func() error {
		_, err := m.createToken(&ententev1.CreateJoinTokenRequest{MemberId: "spare"})
		return err
	})
}

// failingProber reports the probes that fail.
type failingProber struct {
	membership.Prober
	failed chan error
}

func (p failingProber) ProbeIdentity(ctx context.Context, address string, want memberid.Digest) error {
	err := p.Prober.ProbeIdentity(ctx, address, want)
	if err != nil {
		select {
		case p.failed <- err:
		default:
		}
	}
	return err
}

// committedAt waits until this member has the addresses of all members in their rows, and uses them.
func (m *member) committedAt(all ...*member) {
	m.t.Helper()
	m.eventually("has the new addresses", func() error {
		for _, other := range all {
			row, _, err := membership.Members.Get(m.store.View(), other.id)
			if err != nil {
				return err
			}
			at, _, _ := m.directory.Locate(other.id)
			if at != other.address || row.Value.GetAddress() != other.address {
				return fmt.Errorf("%s at %s and %s, not %s", other.id, at, row.Value.GetAddress(), other.address)
			}
		}
		return nil
	})
}

func three(t *testing.T) []*member {
	a := newMember(t, "eu-1").form()
	return []*member{a, newMember(t, "eu-2").joined(a), newMember(t, "eu-3").joined(a)}
}

func TestMovedMembersFindEachOther(t *testing.T) {
	for name, test := range map[string]struct {
		moved []int
		// knows has the members whose new addresses the configuration file of each one names.
		knows [3][]int
	}{
		"one, which knows the others":                   {moved: []int{2}},
		"a majority, and one address is right":          {moved: []int{0, 1}},
		"all, and each file names one of them":          {moved: []int{0, 1, 2}, knows: [3][]int{{1}, {1}, {1}}},
		"all, and each file names the next one":         {moved: []int{0, 1, 2}, knows: [3][]int{{1}, {2}, {}}},
		"all, and the file of one names the two others": {moved: []int{0, 1, 2}, knows: [3][]int{{1, 2}, {}, {}}},
		"all, and every file names all, as in the field": {
			moved: []int{0, 1, 2}, knows: [3][]int{{0, 1, 2}, {0, 1, 2}, {0, 1, 2}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := three(t)
			revision := all[2].write()
			for _, i := range test.moved {
				all[i].move()
			}
			for i, known := range test.knows {
				for _, k := range known {
					all[i].addresses = append(all[i].addresses, all[k].address)
				}
			}
			for _, i := range test.moved {
				all[i].start()
			}
			for _, m := range all {
				m.eventually("reached what was acknowledged before", m.reached(revision))
				m.committedAt(all...)
				m.serving()
			}

			// The addresses are committed: after a restart nobody needs the configuration files, nor what was kept of
			// the statements.
			for _, m := range all {
				m.stop()
				m.addresses = nil
				require.NoError(t, os.Remove(filepath.Join(m.dir, "members")))
			}
			for _, m := range all {
				m.start()
			}
			for _, m := range all {
				m.serving()
			}
		})
	}
}

// A member returns to an address that it has left before anybody committed the new one.
func TestMemberMovesBack(t *testing.T) {
	all := three(t)
	before := all[1].address
	all[0].stop() // no majority: what the others state is not committed
	all[1].move()
	away := all[1].address
	all[1].start()
	all[2].eventually("knows the new address", func() error {
		if at, _, _ := all[2].directory.Locate("eu-2"); at != away {
			return fmt.Errorf("it is known at %s", at)
		}
		return nil
	})
	all[2].eventually("keeps the new address on disk", func() error {
		stated, err := directory.StatedAddresses(filepath.Join(all[2].dir, "members"))
		if err == nil && !slices.Contains(stated, away) {
			err = fmt.Errorf("%v", stated)
		}
		return err
	})
	all[1].stop()
	all[2].stop()
	all[2].start()
	at, _, _ := all[2].directory.Locate("eu-2")
	require.Equal(t, away, at)

	all[1].address = before
	all[1].start()
	all[2].eventually("knows the old address again", func() error {
		if at, _, _ := all[2].directory.Locate("eu-2"); at != before {
			return fmt.Errorf("it is known at %s", at)
		}
		return nil
	})
	all[0].start()
	for _, m := range all {
		m.committedAt(all...)
		m.serving()
	}
}

// exchange sends statements to a member, as a stranger can.
func exchange(
	t *testing.T, to *member, statements ...*ententev1.AddressStatement,
) ([]*ententev1.AddressStatement, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var answer *ententev1.ExchangeAddressesResponse
	err := join.Dialer{Dial: port.DialJoin, Credentials: port.Credentials()}.Call(ctx, to.address,
		func(memberid.Digest) error { return nil },
		func(c ententev1.JoinServiceClient) (err error) {
			answer, err = c.ExchangeAddresses(ctx, &ententev1.ExchangeAddressesRequest{Statements: statements})
			return err
		})
	return answer.GetStatements(), err
}

// Nobody but the holder of a member's identity key moves it, and no statement counts after a later one.
func TestForgedAndReplayedStatements(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	stranger, err := memberid.LoadIdentity(filepath.Join(t.TempDir(), "identity.key"))
	require.NoError(t, err)
	state := func(by *memberid.Identity, id, address string, start uint64) *ententev1.AddressStatement {
		s, err := by.StateAddress(id, address, start)
		require.NoError(t, err)
		return s
	}
	const elsewhere = "192.0.2.1:7440"
	const far = 1 << 30
	signedBefore := state(b.identity, "eu-2", elsewhere, far)
	signedBefore.Address = "192.0.2.2:7440"
	laterStart := state(b.identity, "eu-2", elsewhere, far)
	laterStart.Start++
	otherCertificate := state(stranger, "eu-2", elsewhere, far)
	otherCertificate.IdentityCertificate = b.identity.Certificate.Certificate[0]
	own := state(b.identity, "eu-2", b.address, 1<<20)
	one := func(s *ententev1.AddressStatement) []*ententev1.AddressStatement {
		return []*ententev1.AddressStatement{s}
	}
	const unsigned = "address statement of member eu-2: not signed with the identity key that it names"
	const unknown = ": it is not signed with the identity key of a present member of that name"
	for name, test := range map[string]struct {
		statements []*ententev1.AddressStatement
		code       codes.Code
		text       string
	}{
		"none": {nil, codes.InvalidArgument, "the request has 0 statements; 1 to 64 are possible"},
		"too many": {
			make([]*ententev1.AddressStatement, 65), codes.InvalidArgument, "the request has 65 statements",
		},
		"empty": {one(&ententev1.AddressStatement{}), codes.InvalidArgument, `member id "" has 0 bytes`},
		"no start": {
			one(state(b.identity, "eu-2", elsewhere, 0)), codes.InvalidArgument,
			"address statement of member eu-2: it has no start",
		},
		"no address": {
			one(state(b.identity, "eu-2", "0.0.0.0:1", far)), codes.InvalidArgument, "names no host",
		},
		"a changed address":          {one(signedBefore), codes.InvalidArgument, unsigned},
		"a changed start":            {one(laterStart), codes.InvalidArgument, unsigned},
		"the certificate of another": {one(otherCertificate), codes.InvalidArgument, unsigned},
		"a stranger's key": {
			one(state(stranger, "eu-2", elsewhere, far)), codes.PermissionDenied,
			"address statement of member eu-2" + unknown,
		},
		"another member's name": {
			one(state(b.identity, "eu-1", elsewhere, far)), codes.PermissionDenied,
			"address statement of member eu-1" + unknown,
		},
		"a forged one behind an own one": {
			[]*ententev1.AddressStatement{own, signedBefore}, codes.InvalidArgument, unsigned,
		},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := exchange(t, a, test.statements...)
			require.Equal(t, test.code, status.Code(err))
			require.ErrorContains(t, err, test.text)
			require.Empty(t, answer)
			at, _, _ := a.directory.Locate("eu-2")
			require.Equal(t, b.address, at)
		})
	}

	// What a member has stated in an earlier start counts no more once a later statement is known, before and after the
	// address is committed.
	replayed := state(b.identity, "eu-2", elsewhere, 1<<20-1)
	_, err = exchange(t, a, own)
	require.NoError(t, err)
	requireOutdated := func() {
		t.Helper()
		_, err := exchange(t, a, replayed)
		require.Equal(t, codes.FailedPrecondition, status.Code(err))
		require.ErrorContains(t, err, "address statement of member eu-2: it is of start 1048575 of it, and start "+
			"1048576 is known: a newer statement of the member is known")
	}
	requireOutdated()
	_, err = exchange(t, a, state(b.identity, "eu-2", elsewhere, 1<<20))
	require.ErrorContains(t, err, "it has stated "+b.address+" in the same start")
	a.stop()
	a.start()
	requireOutdated()
	at, _, _ := a.directory.Locate("eu-2")
	require.Equal(t, b.address, at)
	a.serving()
}

// A statement does not let the leader adopt an address at which the member does not answer.
func TestStatedAddressIsVerified(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	all := []*member{a, b, c}
	failed := make(chan error, 1)
	for _, m := range all { // whichever leads
		m.prober.use(failingProber{m.port, failed})
	}
	// As if b had stated the address of c, which only its key can do.
	wrong, err := b.identity.StateAddress("eu-2", c.address, 1<<20)
	require.NoError(t, err)
	for _, m := range []*member{a, c} {
		_, err = exchange(t, m, wrong)
		require.NoError(t, err)
	}
	require.ErrorContains(t, <-failed, "check the identity key at "+c.address)
	for _, m := range all {
		row, _, err := membership.Members.Get(m.store.View(), "eu-2")
		require.NoError(t, err)
		require.Equal(t, b.address, row.Value.GetAddress())
	}
	right, err := b.identity.StateAddress("eu-2", b.address, 1<<20+1)
	require.NoError(t, err)
	for _, m := range []*member{a, c} {
		_, err = exchange(t, m, right)
		require.NoError(t, err)
	}
	for _, m := range all {
		m.committedAt(all...)
		m.serving()
	}
}

// A member that was removed learns nothing from the others, and moves nobody.
func TestRemovedMemberStatesNothing(t *testing.T) {
	a := newMember(t, "eu-1").form()
	b := newMember(t, "eu-2").joined(a)
	c := newMember(t, "eu-3").joined(a)
	b.move()
	b.start()
	for _, m := range []*member{a, b, c} {
		m.committedAt(a, b, c)
	}
	_, err := a.manager.ClusterService().RemoveMember(t.Context(), &ententev1.RemoveMemberRequest{Id: "eu-3"})
	require.NoError(t, err)
	stated, err := c.identity.StateAddress("eu-3", c.address, 1<<20)
	require.NoError(t, err)
	answer, err := exchange(t, a, stated)
	require.Equal(t, apierror.Removed, apierror.Reason(status.Convert(err)), "%v", err)
	require.Empty(t, answer)
}
