package publish

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
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// The reasons for which a version never gets a statement.
const (
	unstatedNoKey = "no JWT authority of it could sign one"
	unstatedGone  = "its authorities were not kept until one could be signed"
	// A damaged history does not stop publication.
	unstatedDamaged = "its record in the history cannot be read"
)

// holder is the member that has the key of an authority.
type holder int

const (
	heldByNone holder = iota
	heldByOther
	heldHere
)

// choice is the outcome of [chooseSigner].
type choice struct {
	// kid is the authority of this member that signs, or empty if none of them does.
	kid string
	// start is the reason for which the statement starts a chain, or empty if it continues the previous one.
	start string
	// wait is true if another member signs, or a key that cannot be used inside a transaction. If neither wait nor kid
	// is set, no member can sign.
	wait bool
}

// chooseSigner decides which authority signs the statement on a version. It is a JWT authority that the previous
// version named in its statement and that is not distrusted, not even by the transaction that makes the version. Of
// several, the one published for longest signs, since most readers know it. If no member holds such a key, the chain
// restarts, signed by an authority of the version itself. If first is set, there is no previous version; previous is
// the statement on it, or nil.
func chooseSigner(
	previous *statement.Statement, first bool, version map[string]*ecdsa.PublicKey, authorities []plan.Authority,
	holderOf func(plan.Authority) holder,
) choice {
	pick := func(named map[string]*ecdsa.PublicKey) choice {
		var chosen *plan.Authority
		var c choice
		for _, a := range authorities {
			if _, ok := named[a.ID]; !ok || a.Kind != plan.JWT || a.State.Distrusted() {
				continue
			}
			switch holderOf(a) {
			case heldByOther:
				c.wait = true
			case heldHere:
				if chosen == nil || a.Number < chosen.Number {
					chosen = &a
				}
			}
		}
		if chosen != nil {
			return choice{kid: chosen.ID}
		}
		return c
	}
	start := statement.StartFirst
	if previous != nil {
		if c := pick(previous.Claims().Next); c.kid != "" || c.wait {
			return c
		}
		start = statement.StartNoSigner
	} else if !first {
		start = statement.StartUnstated
	}
	c := pick(version)
	c.start = start
	return c
}

// draft is the statement that is due on a version: the oldest version without one. Later statements contain its digest.
type draft struct {
	version *statev1.BundleVersion
	choice  choice
	claims  statement.Claims
	// unstated is the reason for which the version gets no statement, or empty.
	unstated string
}

// nextDraft drafts the next statement on a domain's bundle, or returns nil if none is due. versions are the domain's,
// oldest first. If local is set, only keys in the memory of this member can sign.
func (p *Publisher) nextDraft(
	r raftstore.Reader, td string, versions []*statev1.BundleVersion, now time.Time, local bool,
) (*draft, error) {
	i := slices.IndexFunc(versions, func(v *statev1.BundleVersion) bool {
		return v.GetStatement() == "" && v.GetUnstated() == ""
	})
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
			previous = nil // the chain restarts, as it does after a version without a statement
		}
	}
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return nil, err
	}
	alive, err := p.Alive(r)
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
		TrustDomain: b.TrustDomain(), Sequence: d.version.GetSequence(), Keys: b.Digest(),
		Issued: now.Truncate(time.Second),
		Next:   statement.Signers(b, func(kid string) bool { return distrusted[kid] }),
	}
	d.choice = chooseSigner(previous, d.version.GetNumber() == 1, d.claims.Next, all, func(a plan.Authority) holder {
		return p.holderOf(a, alive, local)
	})
	switch {
	case d.choice.wait:
	case d.choice.kid == "":
		d.unstated = unstatedNoKey
	case d.choice.start != "":
		d.claims.Start = d.choice.start
	default:
		d.claims.Previous = previous.Digest()
	}
	return d, nil
}

// holderOf returns who holds the key of an authority. Another member counts while it is alive and has not retired the
// authority: a member that lost its keys retires them, and two such members must not wait for each other. If local is
// set, a key of this member outside of its memory counts as held by another: no transaction waits for a key store, and
// [Signer] signs after the transaction.
func (p *Publisher) holderOf(a plan.Authority, alive []string, local bool) holder {
	if a.Member != p.Member {
		if slices.Contains(alive, a.Member) && !a.State.Past() {
			return heldByOther
		}
		return heldByNone
	}
	key, err := p.Keys.Signer(a.ID)
	if err != nil {
		return heldByNone
	}
	if _, inMemory := key.(*ecdsa.PrivateKey); local && !inMemory {
		return heldByOther
	}
	return heldHere
}

// sign signs a draft whose choice is an authority of this member.
func (p *Publisher) sign(d *draft) (*statement.Statement, error) {
	key, err := p.Keys.Signer(d.choice.kid)
	if err != nil {
		return nil, err
	}
	return statement.New(d.claims, d.choice.kid, func(input []byte) ([]byte, error) { return signInput(key, input) })
}

// signInput makes a JWS signature.
func signInput(key crypto.Signer, input []byte) ([]byte, error) {
	signature, err := keys.SignDigest(key, sha256.Sum256(input))
	if err != nil {
		return nil, err
	}
	fixed, err := svid.JWSSignature(signature)
	return fixed[:], err
}

// signVersions signs the statements that are due on a domain's versions, as far as keys in the memory of this member
// can. It can run several times: a signature that is not committed is never served.
func (p *Publisher) signVersions(tx *raftstore.Tx, td string, versions []*statev1.BundleVersion, now time.Time) error {
	for range versions {
		d, err := p.nextDraft(tx, td, versions, now, true)
		if err != nil || d == nil || d.choice.wait {
			return err
		}
		if d.unstated != "" {
			d.version.Unstated = d.unstated
		} else {
			s, err := p.sign(d)
			if err != nil {
				return nil //nolint:nilerr // Signer retries and logs the failure; publication does not wait
			}
			d.version.Statement = s.String()
		}
		if err := table.HostedHistory.Put(tx, versionKey(td, d.version.GetNumber()), d.version); err != nil {
			return err
		}
	}
	return nil
}

// sameDraft reports whether two drafts made at the same time have the same content.
func sameDraft(a, b *draft) bool {
	return a.version.GetNumber() == b.version.GetNumber() && a.choice == b.choice && a.unstated == b.unstated &&
		a.claims.Start == b.claims.Start && a.claims.Previous == b.claims.Previous && a.claims.Keys == b.claims.Keys &&
		a.claims.Sequence == b.claims.Sequence &&
		maps.EqualFunc(a.claims.Next, b.claims.Next, func(x, y *ecdsa.PublicKey) bool { return x.Equal(y) })
}
