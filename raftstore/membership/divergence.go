package membership

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// maxDigests bounds how many digests of one heartbeat are compared.
const maxDigests = 8

// disagreement returns the digests at the newest index at which two members' differ, ordered by member; nil if there is
// none.
func disagreement(all []*ententev1.StateDigest) (at []*ententev1.StateDigest) {
	for _, d := range all {
		differs := slices.ContainsFunc(all, func(other *ententev1.StateDigest) bool {
			return comparable(d, other) && string(other.GetSum()) != string(d.GetSum())
		})
		if !differs || len(at) > 0 && d.GetIndex() <= at[0].GetIndex() {
			continue
		}
		at = nil
		for _, other := range all {
			if comparable(d, other) {
				at = append(at, other)
			}
		}
	}
	slices.SortFunc(at, func(a, b *ententev1.StateDigest) int {
		return strings.Compare(a.GetMemberId(), b.GetMemberId())
	})
	return at
}

func comparable(a, b *ententev1.StateDigest) bool {
	return a.GetIndex() == b.GetIndex() && a.GetFormat() == b.GetFormat()
}

// outvoted decides whether a member must stop, given the digests at one index. It must if a strict majority of the
// voters has one other digest: without it, they are still a quorum. All of them, and the member, must run one version:
// two versions may differ in what they compute, and then nobody knows which of them is right.
func outvoted(at []*ententev1.StateDigest, voters []string, member string) (by []string, stop bool) {
	own := slices.IndexFunc(at, func(d *ententev1.StateDigest) bool { return d.GetMemberId() == member })
	if own < 0 {
		return nil, false
	}
	for _, d := range at {
		if string(d.GetSum()) == string(at[own].GetSum()) {
			continue
		}
		by = nil
		for _, other := range at {
			if string(other.GetSum()) == string(d.GetSum()) && other.GetVersion() == at[own].GetVersion() &&
				slices.Contains(voters, other.GetMemberId()) && !slices.Contains(by, other.GetMemberId()) {
				by = append(by, other.GetMemberId())
			}
		}
		if len(by) >= majority(len(voters)) {
			return by, true
		}
	}
	return nil, false
}

// suspects returns the members whose digest is not the most frequent one; all, if two are as frequent.
func suspects(at []*ententev1.StateDigest) []string {
	count := map[string]int{}
	for _, d := range at {
		count[string(d.GetSum())]++
	}
	most, tied := 0, false
	for _, n := range count {
		tied = n == most || n < most && tied
		most = max(most, n)
	}
	var ids []string
	for _, d := range at {
		if tied || count[string(d.GetSum())] < most {
			ids = append(ids, d.GetMemberId())
		}
	}
	return ids
}

// divergence compares the members' digests, and stops this member if it is outvoted.
type divergence struct {
	store   *raftstore.Store
	self    string
	version string
	log     hclog.Logger
	metrics *metrics

	mu       sync.Mutex
	diverged []string // on the leader
	alarm    string
}

// own returns this member's digests.
func (d *divergence) own() []*ententev1.StateDigest {
	var all []*ententev1.StateDigest
	for _, digest := range raftstore.IntegrityOf(d.store).Digests() {
		all = append(all, &ententev1.StateDigest{
			MemberId: d.self, Version: d.version, Index: digest.Index, Format: raftstore.DigestFormat,
			Sum: digest.Sum[:],
		})
	}
	return all
}

// list returns the members that do not agree with the others, on the leader.
func (d *divergence) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.diverged)
}

// raise records which members do not agree, and logs it when that changes.
func (d *divergence) raise(at []*ententev1.StateDigest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	alarm := ""
	d.diverged = suspects(at)
	d.metrics.diverged.Set(float64(len(d.diverged)))
	if len(at) > 0 {
		alarm = strings.Join(d.diverged, " ")
	}
	if alarm != d.alarm && alarm != "" {
		d.log.Error("the replicated state of members is not the same", "index", at[0].GetIndex(),
			"diverged", d.diverged, "digests", describeDigests(at))
	}
	d.alarm = alarm
}

func describeDigests(at []*ententev1.StateDigest) string {
	var all []string
	for _, d := range at {
		sum := d.GetSum()
		all = append(all, fmt.Sprintf("%s %x", d.GetMemberId(), sum[:min(len(sum), 8)]))
	}
	return strings.Join(all, ", ")
}

// judge stops this member if it is outvoted at an index. A leader transfers leadership first. Only digests that are its
// own count as such.
func (d *divergence) judge(ctx context.Context, at []*ententev1.StateDigest) {
	own := slices.IndexFunc(at, func(o *ententev1.StateDigest) bool { return o.GetMemberId() == d.self })
	if own < 0 || !slices.ContainsFunc(d.own(), func(o *ententev1.StateDigest) bool {
		return comparable(o, at[own]) && string(o.GetSum()) == string(at[own].GetSum())
	}) {
		return
	}
	var voters []string
	for _, s := range d.store.Servers().List() {
		if s.Voter {
			voters = append(voters, s.MemberID)
		}
	}
	by, stop := outvoted(at, voters, d.self)
	if !stop {
		return
	}
	if d.store.IsLeader() {
		if err := d.store.Servers().TransferLeadership(ctx, by[0]); err != nil {
			d.log.Error("this member has diverged and leads; it could not transfer leadership and tries again",
				"to", by[0], "error", err)
			return
		}
	}
	raftstore.IntegrityOf(d.store).Diverged(fmt.Sprintf("at entry %d it differs from that of %s, a majority of the "+
		"members with a vote", at[0].GetIndex(), strings.Join(by, ", ")))
}
