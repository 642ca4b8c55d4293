package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// What keeps a version from having a statement for good.
const (
	unstatedNoKey = "no JWT authority of it could sign one"
	unstatedGone  = "its authorities were not kept until one could be signed"
	// What is published does not wait for a history that was damaged.
	unstatedDamaged = "its record in the history cannot be read"
)

// hand says who has the key of an authority at hand.
type hand int

const (
	nobodys hand = iota
	anothers
	mine
)

// turn says what is to be done about the statement on a version.
type turn struct {
	// kid is the authority of this member that signs; empty: none of them does.
	kid string
	// start is why a chain starts with it; empty: it continues the one before.
	start string
	// wait leaves it to another member, or to a key that cannot be used inside a transaction; neither wait nor kid: nobody can sign.
	wait bool
}

// whoStates is the rule for who signs the statement on a version. It is a JWT authority that the version before named in
// its statement, and that was not distrusted since, nor by the very transaction that makes the version; the one that has been
// published for longest, which most readers know. Only where no such key is left in any member's hands the chain starts anew,
// signed by an authority of the version itself. first says that there is no version before; previous is the statement on it,
// nil if there is none.
func whoStates(previous *statement.Statement, first bool, version map[string]*ecdsa.PublicKey, authorities []plan.Authority, whose func(plan.Authority) hand) turn {
	pick := func(named map[string]*ecdsa.PublicKey) turn {
		var chosen *plan.Authority
		var t turn
		for _, a := range authorities {
			if _, ok := named[a.ID]; !ok || a.Kind != plan.JWT || a.State.Distrusted() {
				continue
			}
			switch whose(a) {
			case anothers:
				t.wait = true
			case mine:
				if chosen == nil || a.Number < chosen.Number {
					chosen = &a
				}
			}
		}
		if chosen != nil {
			return turn{kid: chosen.ID}
		}
		return t
	}
	start := statement.StartFirst
	if previous != nil {
		if t := pick(previous.Claims().Next); t.kid != "" || t.wait {
			return t
		}
		start = statement.StartNoSigner
	} else if !first {
		start = statement.StartUnstated
	}
	t := pick(version)
	t.start = start
	return t
}

// draft is the statement that is due on a version: the oldest that has none. The statements on those behind it name its digest.
type draft struct {
	version *statev1.BundleVersion
	turn    turn
	claims  statement.Claims
	// unstated is why there will be none.
	unstated string
}

// dueStatement drafts the next statement on a domain's bundle; nil: none is due. versions are the domain's, oldest first.
func (m *Manager) dueStatement(r raftstore.Reader, td string, versions []*statev1.BundleVersion, now time.Time, local bool) (*draft, error) {
	i := slices.IndexFunc(versions, func(v *statev1.BundleVersion) bool { return v.GetStatement() == "" && v.GetUnstated() == "" })
	if i < 0 {
		return nil, nil
	}
	d := &draft{version: versions[i]}
	b, err := HistoryVersion(r, d.version)
	if err != nil {
		d.unstated = unstatedDamaged
		if errors.Is(err, statement.ErrContentGone) {
			d.unstated = unstatedGone
		}
		return d, nil
	}
	var previous *statement.Statement
	if i > 0 && versions[i-1].GetStatement() != "" {
		if previous, err = statement.Parse(versions[i-1].GetStatement()); err != nil {
			previous = nil // the chain starts anew, as behind a version without a statement
		}
	}
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return nil, err
	}
	alive, err := m.config.Alive(r)
	if err != nil {
		return nil, err
	}
	all := make([]plan.Authority, len(rows))
	distrusted := map[string]bool{}
	for i, row := range rows {
		all[i] = table.AuthorityOf(row)
		distrusted[row.GetId()] = all[i].State.Distrusted()
	}
	d.claims = statement.Claims{
		TrustDomain: b.TrustDomain(), Sequence: d.version.GetSequence(), Keys: b.Digest(), Issued: now.Truncate(time.Second),
		Next: statement.Signers(b, func(kid string) bool { return distrusted[kid] }),
	}
	d.turn = whoStates(previous, d.version.GetNumber() == 1, d.claims.Next, all, func(a plan.Authority) hand { return m.whose(a, alive, local) })
	switch {
	case d.turn.wait:
	case d.turn.kid == "":
		d.unstated = unstatedNoKey
	case d.turn.start != "":
		d.claims.Start = d.turn.start
	default:
		d.claims.Previous = previous.Digest()
	}
	return d, nil
}

// whose says in whose hands the key of an authority is. Another member is waited for while it is alive and has not retired it:
// one that lost its keys retires them, and two of those must not wait for each other. Where local is asked for, a key of this member that is kept elsewhere
// counts as another's: inside of a transaction nobody waits for a key store, and [Manager.tendStatements] comes to it after.
func (m *Manager) whose(a plan.Authority, alive []string, local bool) hand {
	if a.Member != m.config.Member {
		if slices.Contains(alive, a.Member) && !a.State.Past() {
			return anothers
		}
		return nobodys
	}
	key, err := m.keys.Signer(a.ID)
	if err != nil {
		return nobodys
	}
	if _, here := key.(*ecdsa.PrivateKey); local && !here {
		return anothers
	}
	return mine
}

// signStatement signs a draft that is this member's to sign.
func (m *Manager) signStatement(d *draft) (*statement.Statement, error) {
	key, err := m.keys.Signer(d.turn.kid)
	if err != nil {
		return nil, err
	}
	return statement.New(d.claims, d.turn.kid, func(input []byte) ([]byte, error) { return signInput(key, input) })
}

// signInput signs as JWS has it.
func signInput(key crypto.Signer, input []byte) ([]byte, error) {
	signature, err := keys.SignDigest(key, sha256.Sum256(input))
	if err != nil {
		return nil, err
	}
	fixed, err := svid.JWSSignature(signature)
	return fixed[:], err
}

// stateVersions signs what is due on a domain's versions, as far as it is this member's to sign with keys that are in its memory.
// It can run again and again without a trace: a signature that is not committed was seen by nobody.
func (m *Manager) stateVersions(tx *raftstore.Tx, td string, versions []*statev1.BundleVersion, now time.Time) error {
	for range versions {
		d, err := m.dueStatement(tx, td, versions, now, true)
		if err != nil || d == nil || d.turn.wait {
			return err
		}
		if d.unstated != "" {
			d.version.Unstated = d.unstated
		} else {
			s, err := m.signStatement(d)
			if err != nil {
				return nil //nolint:nilerr // tendStatements tries again, and tells of it; what is published does not wait
			}
			d.version.Statement = s.String()
		}
		if err := HostedHistory.Put(tx, versionKey(td, d.version.GetNumber()), d.version); err != nil {
			return err
		}
	}
	return nil
}

// sameDraft says whether two drafts of one moment say the same.
func sameDraft(a, b *draft) bool {
	return a.version.GetNumber() == b.version.GetNumber() && a.turn == b.turn && a.unstated == b.unstated && a.claims.Start == b.claims.Start &&
		a.claims.Previous == b.claims.Previous && a.claims.Keys == b.claims.Keys && a.claims.Sequence == b.claims.Sequence &&
		maps.EqualFunc(a.claims.Next, b.claims.Next, func(x, y *ecdsa.PublicKey) bool { return x.Equal(y) })
}

// putBundle writes a version of a hosted bundle, with its place in the history and its statement.
func (m *Manager) putBundle(tx *raftstore.Tx, b *bundle.Bundle, now time.Time) error {
	td := b.TrustDomain().Name()
	if err := table.HostedBundles.Put(tx, td, b.Row(now)); err != nil {
		return err
	}
	versions, err := record(tx, b, now)
	if err != nil {
		return err
	}
	return m.stateVersions(tx, td, versions, now)
}
