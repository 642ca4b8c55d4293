package strictjson

import (
	"encoding/json"
	"testing"
)

// FuzzSplit: objects are split as by encoding/json, except that a duplicate name, of which encoding/json keeps the
// last value, is rejected.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"}"]},"\u0062" : -1.5e3 ,"c":[],"":null}`))
	f.Add([]byte(`{"\ud83d\ude00\ud83d\ud83d\ude00\ude00\ud800x\udc00":"\\\"","\b\f\n\r\t\/\"\\":true}`))
	f.Add([]byte(` { "x" : 1 , "\u0078" : 2 } `))
	f.Fuzz(func(t *testing.T, data []byte) {
		if ParseText(data) != nil {
			return
		}
		list, err := ParseObject(data, "it")
		if err != nil {
			return
		}
		members := make(map[string]json.RawMessage)
		for _, m := range list {
			members[m.Name] = m.Value
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(want) != len(members) {
			t.Fatalf("%d members of %q, %d are right: %v", len(members), data, len(want), err)
		}
		for name, value := range want {
			if got, ok := members[name]; !ok || string(got) != string(value) {
				t.Fatalf("%q of %q is %q, not %q", name, data, got, value)
			}
		}
	})
}
