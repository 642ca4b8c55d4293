package publish

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

// ownSource is the recorded source of hosted versions.
const ownSource = "own"

// versionKey returns the key of a version. Keys sort by number.
func versionKey(td string, number uint64) string { return fmt.Sprintf("%s/%020d", td, number) }

func historyKeyKey(td string, id []byte) string { return td + "/" + hex.EncodeToString(id) }

// History returns the versions of a hosted domain's bundle, oldest first. It is empty if the domain is not hosted.
func History(r raftstore.Reader, td string) ([]*statev1.BundleVersion, error) {
	rows, err := table.HostedHistory.List(r, table.DomainPrefix(td))
	if err != nil {
		return nil, fmt.Errorf("list the versions of the bundle of %s: %w", td, err)
	}
	versions := make([]*statev1.BundleVersion, len(rows))
	for i, row := range rows {
		versions[i] = row.Value
	}
	return versions, nil
}

// HistoryVersion builds the bundle of a version that [History] returned from the same state.
func HistoryVersion(r raftstore.Reader, version *statev1.BundleVersion) (*bundle.Bundle, error) {
	return statement.FromVersion(version, func(id []byte) (*statev1.BundleKey, error) {
		row, found, err := table.HostedHistoryKeys.Get(r, historyKeyKey(version.GetTrustDomain(), id))
		if err == nil && !found {
			err = fmt.Errorf("authority %x is not in the history", id)
		}
		return row.Value, err
	})
}

// Statements returns the signed statements on a hosted domain's bundle, in the order of their sequences, as the bundle
// endpoint and the peer streams serve them.
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

// record adds a version to the domain's history, and returns all versions that the history then holds.
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
		if err := table.HostedHistory.Put(tx, versionKey(td, v.GetNumber()), v); err != nil {
			return nil, err
		}
	}
	for _, number := range r.Drop {
		if err := table.HostedHistory.Delete(tx, versionKey(td, number)); err != nil {
			return nil, err
		}
	}
	for _, key := range r.Keep {
		if err := table.HostedHistoryKeys.Put(tx, historyKeyKey(td, key.GetId()), key); err != nil {
			return nil, err
		}
	}
	for _, id := range r.Forget {
		if err := table.HostedHistoryKeys.Delete(tx, historyKeyKey(td, id)); err != nil {
			return nil, err
		}
	}
	return statement.Recount(versions, r), nil
}

// DeleteHistory removes the history of a domain that is no longer hosted.
func DeleteHistory(tx *raftstore.Tx, td string) error {
	if err := table.DeleteRows(tx, table.HostedHistory, td); err != nil {
		return err
	}
	return table.DeleteRows(tx, table.HostedHistoryKeys, td)
}

// KeepHistory keeps a domain's history as it was before a restore, so that its chain of statements continues.
func KeepHistory(before *raftstore.View, tx *raftstore.Tx, td string) error {
	if err := table.RestoreRows(before, tx, table.HostedHistory, td); err != nil {
		return err
	}
	return table.RestoreRows(before, tx, table.HostedHistoryKeys, td)
}
