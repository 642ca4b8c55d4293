package inspect

import (
	"encoding/hex"
	"io"
	"time"

	"github.com/ententehq/entente/raftstore/snapshot"
)

// SnapshotReport describes the content of a snapshot file.
type SnapshotReport struct {
	FormatVersion uint32          `json:"format_version"`
	ClusterID     string          `json:"cluster_id"`
	Revision      uint64          `json:"revision"`
	Time          time.Time       `json:"time"`
	Bytes         int64           `json:"bytes"`
	SHA256        string          `json:"sha256"`
	Rows          int             `json:"rows"`
	Tables        []SnapshotTable `json:"tables"`
}

// SnapshotTable is the number of rows of one table.
type SnapshotTable struct {
	Name string `json:"name"`
	Rows int    `json:"rows"`
}

// Snapshot reads a whole snapshot, verifies it including its SHA-256, and describes it.
func Snapshot(r io.Reader) (*SnapshotReport, error) {
	info, err := snapshot.Inspect(r)
	if err != nil {
		return nil, err
	}
	report := &SnapshotReport{
		FormatVersion: info.FormatVersion, ClusterID: info.ClusterID, Revision: uint64(info.Revision), Time: info.Time,
		Bytes: info.Bytes, SHA256: hex.EncodeToString(info.SHA256[:]), Rows: info.Rows, Tables: []SnapshotTable{},
	}
	for _, t := range info.Tables {
		report.Tables = append(report.Tables, SnapshotTable{Name: t.Name, Rows: t.Rows})
	}
	return report, nil
}
