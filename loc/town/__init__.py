"""A small town, rendered: the photographs of `loc demo`, with exact ground truth.

plan.py       which house stands where: houses.py, landmarks.py, furniture.py, made of faces.py
facades.py    how fronts are painted, with textures.py, lettering.py, noise.py; atlas.py holds all paintings
raster.py     the nearest face per pixel; light.py sun, sky and lamps; shade.py the radiance
photo.py      lens and film; views.py who photographed what; studio.py worker processes
dataset.py    the folders of Aachen Day-Night v1.1
"""
