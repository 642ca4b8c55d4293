package membership

import (
	"encoding/hex"
	"slices"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/recovery"
	"github.com/ententehq/entente/raftstore/membership/removal"
)

var (
	// Members has a row for each member, under its ID.
	Members    = raftstore.NewTable[*statev1.Member]("members", raftstore.RecordsNow)
	alive      = raftstore.NewTable[*statev1.AliveMember]("alive")
	joinTokens = raftstore.NewTable[*statev1.JoinToken]("join_tokens", raftstore.RecordsNow)
)

// AlivePrefix is the prefix of the rows that mark members alive, to be followed.
func AlivePrefix() raftstore.Prefix { return alive.Prefix("") }

// Alive returns the IDs of the members that the leader marks alive, sorted.
func Alive(r raftstore.Reader) ([]string, error) {
	rows, err := alive.List(r, "")
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(rows))
	for _, row := range rows {
		ids = append(ids, row.Key)
	}
	slices.Sort(ids)
	return ids, nil
}

// committedAddresses returns the addresses in the rows of members, with the starts in which the members stated them.
func committedAddresses(rows []raftstore.Row[*statev1.Member]) []directory.Entry {
	entries := make([]directory.Entry, 0, len(rows))
	for _, row := range rows {
		if identity := row.Value.GetIdentity(); len(identity) == len(memberid.Digest{}) {
			entries = append(entries, directory.Entry{
				ID: row.Key, Identity: memberid.Digest(identity), Address: row.Value.GetAddress(),
				Start: row.Value.GetAddressStart(),
			})
		}
	}
	return entries
}

// survive keeps the membership and the spent tokens over an operator's restore. The members are those at the time of
// the restore, not those at the time of the snapshot, and no spent token becomes valid again. Tokens that can still
// admit a member are void, those whose joiners wait for approval included.
func survive(before, restored *raftstore.View, tx *raftstore.Tx) error {
	if err := keep(Members, before, restored, tx, nil); err != nil {
		return err
	}
	if err := keep(alive, before, restored, tx, nil); err != nil {
		return err
	}
	if err := keep(recovery.Recoveries, before, restored, tx, nil); err != nil {
		return err
	}
	if err := keep(removal.Removals, before, restored, tx, nil); err != nil {
		return err
	}
	spent := func(t *statev1.JoinToken) bool { return join.StateOf(t) == join.Approved }
	return keep(joinTokens, before, restored, tx, spent)
}

// keep replaces a restored table by the one before. With a condition, only the rows that meet it are kept, and restored
// rows that meet it stay too.
func keep[M proto.Message](
	t raftstore.Table[M], before, restored *raftstore.View, tx *raftstore.Tx, condition func(M) bool,
) error {
	was, err := t.List(restored, "")
	if err != nil {
		return err
	}
	for _, row := range was {
		if condition == nil || !condition(row.Value) {
			if err := t.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	now, err := t.List(before, "")
	if err != nil {
		return err
	}
	for _, row := range now {
		if condition == nil || condition(row.Value) {
			if err := t.Put(tx, row.Key, row.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// LowestCommandVersion returns the lowest version of commands that a member has announced, and a member that has. What
// older members would not enforce must not be written before all have announced the version that introduced it.
func LowestCommandVersion(r raftstore.Reader) (version uint32, member string, err error) {
	rows, err := Members.List(r, "")
	if err != nil {
		return 0, "", err
	}
	version, member = lowestCommandVersion(rows)
	return version, member, nil
}

func lowestCommandVersion(rows []raftstore.Row[*statev1.Member]) (version uint32, member string) {
	version = raftstore.CommandVersion
	for _, row := range rows {
		if v := row.Value.GetCommandVersion(); v < version {
			version, member = v, row.Key
		}
	}
	return version, member
}

// founded reports whether a row is one that a new cluster writes by itself.
func founded(_ *raftstore.View, table, _ string) bool {
	return table == Members.Name() || table == alive.Name() || table == joinTokens.Name()
}

func hexDigest(identity []byte) string { return hex.EncodeToString(identity) }
