"""Resolution scaling: lowering the resolution at which a network works, as a compression method.

Morlier, Leonardon, Gripon, "Réduction de la Résolution comme Technique de Compression pour les Systèmes
d'Apprentissage Profond en Vision", GRETSI 2025. Nothing is public yet: the cost model comes first.
"""
