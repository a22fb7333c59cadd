"""Gates: the rules that give a trial its verdict."""
