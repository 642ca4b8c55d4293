// Package publish writes trust bundles to stores that other programs read, such as a folder.
//
// A store receives the objects that it has to hold ([Objects]). It writes only those whose bytes differ, and removes
// what it wrote itself and is not to be held any more, since that is how trust ends for a reader. It never touches what
// another program put there. Start reading at object.go and folder.go.
package publish
