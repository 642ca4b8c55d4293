package autopilot

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// cluster returns members with votes, that joined a day ago: alive ones, and then dead ones that were last heard a
// number of hours ago.
func cluster(alive int, dead ...int) (members []Member) {
	for i := range alive + len(dead) {
		name := string(rune('a' + i))
		m := Member{ID: name, Zone: name, Voter: true, Joined: noon.Add(-24 * time.Hour)}
		if m.Alive = i < alive; !m.Alive {
			m.LastHeard = noon.Add(-time.Duration(dead[i-alive]) * time.Hour)
		}
		members = append(members, m)
	}
	return members
}

func with(members []Member, change func(m []Member)) []Member {
	change(members)
	return members
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings Settings
		members  []Member
		// removed is who is removed at noon; text a part of the verdict on the last member.
		removed, text string
	}{
		{"all is well", Defaults, cluster(3), "", ""},
		{"one of three dead: nobody stands in", Defaults, cluster(2, 48), "",
			"it is removed once 3 members with a vote are alive without it and have been members for 10m0s, and 2 " +
				"are: start it, or add a member"},
		{"a replacement has come", Defaults, cluster(3, 48), "d", "others replace it"},
		{"not dead for long", Defaults, cluster(3, 23), "", "others replace it: it is removed at the time shown"},
		{"dead for exactly as long", Defaults, cluster(3, 24), "d", ""},
		{"the replacement is not stable", Defaults,
			with(cluster(3, 48), func(m []Member) { m[2].Joined = noon.Add(-9 * time.Minute) }), "", "and 2 are"},
		{"the replacement has no vote", Defaults,
			with(cluster(3, 48), func(m []Member) { m[2].Voter = false }), "", "and 2 are"},
		{"the one dead for longest goes first", Defaults, cluster(3, 30, 48), "e", ""},
		{"a dead member without a vote", Defaults,
			with(cluster(3, 48), func(m []Member) { m[3].Voter = false }), "d", ""},
		{"never heard", Defaults, with(cluster(3, 48), func(m []Member) { m[3].LastHeard = time.Time{} }), "",
			"has sent no heartbeat since it joined, and is not removed automatically: start it, or run " +
				"'entente cluster remove d'"},
		{"switched off", Settings{DeadAfter: time.Hour, MinQuorum: 1}, cluster(3, 48), "",
			"dead members are not removed: 'entente cluster autopilot set --remove-dead-members' changes that"},
		{"a smaller quorum", Settings{Remove: true, DeadAfter: time.Hour, MinQuorum: 2}, cluster(2, 48), "c", ""},
		{"a larger quorum", Settings{Remove: true, DeadAfter: time.Hour, MinQuorum: 5}, cluster(4, 48), "",
			"and 4 are"},
		{"two of five dead", Settings{Remove: true, DeadAfter: time.Hour, MinQuorum: 3}, cluster(3, 2, 3), "e", ""},
		{"catches up", Defaults, with(cluster(3), func(m []Member) { m[2].Voter = false }), "",
			"gets its vote once it has caught up"},
		{"a non-voter for good", Defaults,
			with(cluster(3), func(m []Member) { m[2].Voter, m[2].NonVoter = false, true }), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			verdicts := Judge(c.settings, c.members, noon)
			removed, _ := due(verdicts, noon)
			require.Equal(t, c.removed, removed.ID)
			if c.text != "" {
				require.NotEmpty(t, verdicts)
				require.Contains(t, verdicts[len(verdicts)-1].Text, c.text)
			} else if c.removed == "" {
				require.Empty(t, verdicts)
			}
		})
	}
}

func TestTolerance(t *testing.T) {
	for members, want := range map[[2]int]int{
		{1, 0}: 0, {2, 0}: 0, {3, 0}: 1, {2, 1}: 0, {5, 0}: 2, {4, 1}: 1, {3, 2}: 0, {2, 3}: 0,
	} {
		require.Equal(t, want, Tolerance(cluster(members[0], make([]int, members[1])...)), "%v", members)
	}
}

func TestWarnings(t *testing.T) {
	zones := func(names ...string) []Member {
		return with(cluster(len(names)), func(m []Member) {
			for i := range m {
				m[i].Zone = names[i]
			}
		})
	}
	require.Empty(t, Warnings(zones("a", "b", "c")))
	require.Empty(t, Warnings(zones("a")), "a single member has one zone")
	require.Empty(t, Warnings(zones("a", "a", "b", "b", "c")))
	require.Equal(t, []string{
		"2 of 3 members with a vote are in zone a: its loss is the loss of the quorum; add members in other zones",
	}, Warnings(zones("a", "a", "b")))
	require.Contains(t, Warnings(zones("a", "b", "c", "d"))[0], "4 members with a vote bear no more losses than 3")
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		m     *ententev1.Autopilot
		paths []string
		err   string
	}{
		{&ententev1.Autopilot{MinQuorum: 5}, []string{"min_quorum"}, ""},
		{&ententev1.Autopilot{MinQuorum: 0}, []string{"min_quorum"}, "min_quorum is 0; it must be from 1 to 9"},
		{&ententev1.Autopilot{DeadAfter: durationpb.New(time.Minute)}, []string{"dead_after"},
			"dead_after is 1m0s; it must be from 10m0s to 720h0m0s"},
		{&ententev1.Autopilot{}, []string{"dead_after"}, "dead_after is 0s; it must be from 10m0s"},
		{&ententev1.Autopilot{DeadAfter: &durationpb.Duration{Seconds: 1 << 60}}, []string{"dead_after"},
			"it must be from"},
		{&ententev1.Autopilot{}, []string{"etag"},
			`update_mask names "etag"; known are [remove_dead_members dead_after min_quorum]`},
	} {
		next, err := Defaults.with(c.m, c.paths)
		if c.err == "" {
			require.NoError(t, err)
			require.Equal(t, Settings{Remove: true, DeadAfter: 24 * time.Hour, MinQuorum: 5}, next)
			require.Equal(t, next, of(next.row(7)), "as it is stored")
			continue
		}
		require.ErrorContains(t, err, c.err)
	}
}

// TestLeaderObservesItself: a leader removes no member whose silence it has not observed for long, whatever the state
// has of it, and begins again when the member returns.
func TestLeaderObservesItself(t *testing.T) {
	members, observed := cluster(3, 48), seen{}
	removed, _ := due(Judge(Defaults, members, noon), noon)
	require.Equal(t, "d", removed.ID, "by the state alone it would be removed")
	require.False(t, observed.long("d", noon), "a leader that has just begun has observed nothing")
	observed.observe(members, noon)
	require.False(t, observed.long("d", noon.Add(MinDeadAfter-1)))
	require.True(t, observed.long("d", noon.Add(MinDeadAfter)))
	require.False(t, observed.long("a", noon.Add(MinDeadAfter)), "it is alive")

	members[3].Alive = true
	observed.observe(members, noon.Add(time.Hour))
	members[3].Alive = false
	observed.observe(members, noon.Add(2*time.Hour))
	require.False(t, observed.long("d", noon.Add(2*time.Hour+MinDeadAfter-1)))
}
