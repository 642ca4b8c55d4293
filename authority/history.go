package authority

import (
	"encoding/hex"
	"fmt"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// HostedHistory are the last [bundle.HostedDepth] versions of the bundles of hosted domains, by the number of the version
// below the name of the domain, and hostedHistoryKeys the authorities in them.
var (
	HostedHistory     = raftstore.NewTable[*statev1.BundleVersion]("hosted_history")
	hostedHistoryKeys = raftstore.NewTable[*statev1.BundleKey]("hosted_history_keys")
)

// ownSource is where a hosted version comes from.
const ownSource = "own"

// versionKey sorts as the numbers do.
func versionKey(td string, number uint64) string { return fmt.Sprintf("%s/%020d", td, number) }

func historyKeyKey(td string, id []byte) string { return td + "/" + hex.EncodeToString(id) }

// History returns the versions of a hosted domain's bundle, oldest first. It is empty for a domain that is not hosted.
func History(r raftstore.Reader, td string) ([]*statev1.BundleVersion, error) {
	rows, err := HostedHistory.List(r, table.DomainPrefix(td))
	if err != nil {
		return nil, fmt.Errorf("list the versions of the bundle of %s: %w", td, err)
	}
	versions := make([]*statev1.BundleVersion, len(rows))
	for i, row := range rows {
		versions[i] = row.Value
	}
	return versions, nil
}

// HistoryVersion builds the bundle of one of the versions that [History] returned, from the same state.
func HistoryVersion(r raftstore.Reader, version *statev1.BundleVersion) (*bundle.Bundle, error) {
	return statement.FromVersion(version, func(id []byte) (*statev1.BundleKey, error) {
		row, found, err := hostedHistoryKeys.Get(r, historyKeyKey(version.GetTrustDomain(), id))
		if err == nil && !found {
			err = fmt.Errorf("authority %x is not in the history", id)
		}
		return row.Value, err
	})
}

// Statements are the signed statements on a hosted domain's bundle that are kept, in the order of their sequences: what its
// readers are shown, at the bundle endpoint and on streams.
func Statements(r raftstore.Reader, td string) ([]string, error) {
	versions, err := History(r, td)
	if err != nil {
		return nil, err
	}
	var statements []string
	for _, v := range versions {
		if s := v.GetStatement(); s != "" {
			statements = append(statements, s)
		}
	}
	return statements, nil
}

// record adds a version to the domain's history, and returns the versions that there are then.
func record(tx *raftstore.Tx, b *bundle.Bundle, now time.Time) ([]*statev1.BundleVersion, error) {
	td := b.TrustDomain().Name()
	versions, err := History(tx, td)
	if err != nil {
		return nil, err
	}
	r, err := statement.Record(b, versions, ownSource, now, statement.HostedDepth)
	if err != nil {
		return nil, err
	}
	for _, v := range r.Put {
		if err := HostedHistory.Put(tx, versionKey(td, v.GetNumber()), v); err != nil {
			return nil, err
		}
	}
	for _, number := range r.Drop {
		if err := HostedHistory.Delete(tx, versionKey(td, number)); err != nil {
			return nil, err
		}
	}
	for _, key := range r.Keep {
		if err := hostedHistoryKeys.Put(tx, historyKeyKey(td, key.GetId()), key); err != nil {
			return nil, err
		}
	}
	for _, id := range r.Forget {
		if err := hostedHistoryKeys.Delete(tx, historyKeyKey(td, id)); err != nil {
			return nil, err
		}
	}
	return statement.Recount(versions, r), nil
}

// forgetHistory removes the history of a domain that is hosted no more.
func forgetHistory(tx *raftstore.Tx, td string) error {
	if err := table.DeleteRows(tx, HostedHistory, td); err != nil {
		return err
	}
	return table.DeleteRows(tx, hostedHistoryKeys, td)
}

// keepHistory keeps a domain's history as it was before a restore, so that its chain of statements goes on.
func keepHistory(before *raftstore.View, tx *raftstore.Tx, td string) error {
	if err := table.RestoreRows(before, tx, HostedHistory, td); err != nil {
		return err
	}
	return table.RestoreRows(before, tx, hostedHistoryKeys, td)
}
